#include "memory/cgroup.h"

#include <gtest/gtest.h>

#include <string>

#include "base/bytes.h"
#include "memory/fake_cgroup_for_test.h"

namespace espalier {
namespace {

class CgroupTest : public testing::Test {
 protected:
  CgroupReading Read() {
    auto reading = ReadCgroup(files_.options());
    EXPECT_TRUE(reading.ok()) << reading.status().message();
    return reading.ok() ? *reading : CgroupReading();
  }
  // The share at the tightest bound when `own` bytes are ours; 0 where there is no bound.
  uint64_t Share(uint64_t own = 0, bool hard_only = false) {
    const CgroupReading reading = Read();
    const CgroupBound* const bound = TightestBound(reading, own, hard_only);
    return bound == nullptr ? 0 : bound->ShareBytes(own);
  }

  FakeCgroup files_;
};

using CgroupV2 = CgroupTest;
using CgroupV1 = CgroupTest;

TEST_F(CgroupV2, TheSmallestLimitOfAllGroupsAboveHolds) {
  files_.WriteMembership("0::/pod/container\n");
  files_.Write("pod/container/memory.max", "3000\n");
  files_.Write("pod/container/memory.stat", "anon 0\n");
  files_.Write("pod/memory.max", "2000\n");
  files_.Write("pod/memory.stat", "anon 0\n");
  EXPECT_EQ(Share(), 2000u);
  files_.Write("pod/memory.max", "max\n");
  EXPECT_EQ(Share(), 3000u);
  files_.Write("memory.max", "1000\n");
  files_.Write("memory.stat", "anon 0\n");
  EXPECT_EQ(Share(), 1000u);
  EXPECT_TRUE(Read().problem.ok());
}

TEST_F(CgroupV2, HighBelowMaxCountsButIsNoHardLimit) {
  files_.WriteMembership("0::/a\n");
  files_.Write("a/memory.max", "3000\n");
  files_.Write("a/memory.high", "2000\n");
  files_.Write("a/memory.stat", "anon 0\n");
  EXPECT_EQ(Share(0, false), 2000u);
  EXPECT_EQ(Share(0, true), 3000u);
  const CgroupReading reading = Read();
  const CgroupBound* const tightest = TightestBound(reading, 0, false);
  EXPECT_EQ(tightest->file, files_.options().root + "/a/memory.high");
}

TEST_F(CgroupV2, ANeighbourInAGroupAboveTakesFromItsLimitAndWeDoNot) {
  files_.WriteMembership("0::/pod/ours\n");
  files_.Write("pod/ours/memory.max", "8000\n");
  files_.Write("pod/ours/memory.stat", "anon 1500\n");
  files_.Write("pod/memory.max", "10000\n");
  files_.Write("pod/memory.stat", "anon 1500\n");
  EXPECT_EQ(Share(1500), 8000u);
  files_.Write("pod/memory.stat", "anon 7500\n");  // 6000 of a neighbour's
  EXPECT_EQ(Share(1500), 4000u);
  // We grow by 1000, and nothing changes.
  files_.Write("pod/ours/memory.stat", "anon 2500\n");
  files_.Write("pod/memory.stat", "anon 8500\n");
  EXPECT_EQ(Share(2500), 4000u);
}

TEST_F(CgroupV2, HeldIsWhatCannotBeTakenBackAndPageCacheIsNot) {
  files_.WriteMembership("0::/a\n");
  files_.Write("a/memory.max", "10000\n");
  files_.Write("a/memory.current", "9999\n");
  const std::string stat =
      "anon 1000\nfile 7000\nkernel 90\nkernel_stack 1\npagetables 2\nsec_pagetables 3\npercpu 4\nsock 5\nvmalloc 6\n"
      "shmem 200\nfile_mapped 6000\nslab_reclaimable 60\nslab_unreclaimable 7\n";
  files_.Write("a/memory.stat", stat);
  EXPECT_EQ(Read().bounds.at(0).held_bytes, 1000u + 200 + 1 + 2 + 3 + 4 + 5 + 6 + 7);
  // Locked anonymous pages are among the anonymous ones already; locked pages of files come on top.
  files_.Write("a/memory.stat", "anon 1000\nshmem 200\ninactive_anon 300\nactive_anon 400\nunevictable 500\n");
  EXPECT_EQ(Read().bounds.at(0).held_bytes, 1200u);
  files_.Write("a/memory.stat", "anon 1000\nshmem 200\ninactive_anon 300\nactive_anon 400\nunevictable 900\n");
  EXPECT_EQ(Read().bounds.at(0).held_bytes, 1600u);
}

TEST_F(CgroupV2, InANamespaceTheRootIsOurGroup) {
  files_.WriteMembership("0::/\n");
  files_.Write("memory.max", "4000\n");
  files_.Write("memory.stat", "anon 100\n");
  EXPECT_EQ(Share(), 3900u);
}

TEST_F(CgroupV2, APathOutOfTheNamespaceReadsTheRootAndNothingOutside) {
  files_.Write("memory.max", "4000\n");
  files_.Write("memory.stat", "anon 0\n");
  files_.Write("x/memory.max", "10\n");
  files_.Write("../x/memory.max", "20\n");
  for (const char* path : {"/../x", "/..", "/x/../../x"}) {
    files_.WriteMembership(std::string("0::") + path + "\n");
    EXPECT_EQ(Share(), 4000u) << path;
  }
}

TEST_F(CgroupV2, AMountOfAPartIsFoundByTheEndOfThePath) {
  files_.WriteMembership("0::/system.slice/docker-4f.scope/worker\n");
  files_.Write("memory.max", "4000\n");
  files_.Write("memory.stat", "anon 0\n");
  EXPECT_EQ(Share(), 4000u);  // the mount shows the container only
  files_.Write("worker/memory.max", "3000\n");
  files_.Write("worker/memory.stat", "anon 0\n");
  EXPECT_EQ(Share(), 3000u);
}

TEST_F(CgroupV2, FollowsALimitThatChangesAndAGroupThatGoes) {
  files_.WriteMembership("0::/pod/ours\n");
  files_.Write("pod/ours/memory.max", "3000\n");
  files_.Write("pod/ours/memory.stat", "anon 0\n");
  files_.Write("pod/memory.max", "5000\n");
  files_.Write("pod/memory.stat", "anon 0\n");
  EXPECT_EQ(Share(), 3000u);
  files_.Write("pod/ours/memory.max", "2500\n");
  EXPECT_EQ(Share(), 2500u);
  files_.Remove("pod/ours/memory.max");
  EXPECT_EQ(Share(), 5000u);
  files_.Remove("pod/ours");
  EXPECT_EQ(Share(), 5000u);
  files_.Remove("pod");
  EXPECT_TRUE(Read().bounds.empty());
  files_.Remove("");
  EXPECT_TRUE(Read().bounds.empty());
  EXPECT_TRUE(Read().problem.ok());
}

TEST_F(CgroupV2, MaxAndHugeNumbersAreNoLimit) {
  files_.WriteMembership("0::/a\n");
  for (const char* text : {"max", "max\n", "9223372036854771712\n", "4611686018427387904\n", "18446744073709551615",
                           "99999999999999999999999999\n"}) {
    files_.Write("a/memory.max", text);
    EXPECT_TRUE(Read().bounds.empty()) << text;
    EXPECT_TRUE(Read().problem.ok()) << text;
  }
  files_.Write("a/memory.max", "4611686018427387903\n");
  files_.Write("a/memory.stat", "anon 0\n");
  EXPECT_EQ(Share(), (uint64_t{1} << 62) - 1);
}

TEST_F(CgroupV2, AFileOfGarbageIsNamedAndTheOthersStillCount) {
  files_.WriteMembership("0::/pod/ours\n");
  files_.Write("pod/memory.max", "5000\n");
  files_.Write("pod/memory.stat", "anon 0\n");
  for (const char* text : {"", "\n", "ma", "maximum\n", "-1\n", "12MiB\n", "12 13\n", "\xff\xfe", "0x10\n"}) {
    files_.Write("pod/ours/memory.max", text);
    EXPECT_EQ(Share(), 5000u) << text;
    const Status problem = Read().problem;
    ASSERT_FALSE(problem.ok()) << text;
    EXPECT_EQ(problem.code(), ErrorCode::kCorrupt);
    EXPECT_NE(problem.message().find("ours/memory.max"), std::string::npos) << problem.message();
    EXPECT_EQ(problem.message().find('\xff'), std::string::npos);  // messages end up in JSON
  }
}

TEST_F(CgroupV2, ALimitHoldsWithoutAReadableStat) {
  files_.WriteMembership("0::/a\n");
  files_.Write("a/memory.max", "3000\n");
  EXPECT_EQ(Share(), 3000u);
  EXPECT_EQ(Read().problem.code(), ErrorCode::kNotFound);
  for (const char* stat : {"", "file 3\n", "anon", "anon lots\n", "anon 1\nshmem -2\n"}) {
    files_.Write("a/memory.stat", stat);
    EXPECT_EQ(Share(), 3000u) << stat;
    EXPECT_FALSE(Read().problem.ok()) << stat;
  }
  files_.Write("a/memory.stat", "anon 18446744073709551615\nshmem 18446744073709551615\n");
  EXPECT_EQ(Share(), 0u);  // nothing is left, and nothing has overflowed
}

TEST_F(CgroupV2, AMembershipThatCannotBeUnderstoodIsAnError) {
  EXPECT_EQ(ReadCgroup(files_.options()).status().code(), ErrorCode::kNotFound);
  for (const char* text : {"garbage\n", "0:\n", "0::\n", "0::relative\n", "\n", "0::/a\nhalf"}) {
    files_.WriteMembership(text);
    const auto reading = ReadCgroup(files_.options());
    ASSERT_FALSE(reading.ok()) << text;
    EXPECT_EQ(reading.status().code(), ErrorCode::kCorrupt) << text;
  }
  std::string deep = "0::";
  for (int i = 0; i < 5000; ++i) {
    deep += "/a";
  }
  files_.WriteMembership(deep);
  EXPECT_EQ(ReadCgroup(files_.options()).status().code(), ErrorCode::kCorrupt);
  files_.WriteMembership("");  // a kernel without control groups
  EXPECT_TRUE(Read().bounds.empty());
}

TEST_F(CgroupV2, NamesMayHaveColonsAndSpaces) {
  files_.WriteMembership("0::/a: b:c\n");
  files_.Write("a: b:c/memory.max", "3000\n");
  files_.Write("a: b:c/memory.stat", "anon 0\n");
  EXPECT_EQ(Share(), 3000u);
}

TEST_F(CgroupV1, ReadsTheMemoryControllersLimitAndTheHierarchysHeldBytes) {
  files_.WriteMembership("5:cpu,cpuacct:/elsewhere\n4:memory:/pod/ours\n1:name=systemd:/x\n");
  files_.Write("memory/pod/ours/memory.limit_in_bytes", "9223372036854771712\n");
  files_.Write("memory/pod/ours/memory.soft_limit_in_bytes", "10\n");
  files_.Write("memory/pod/ours/memory.stat", "rss 1\ntotal_rss 300\nhierarchical_memory_limit 9223372036854771712\n");
  EXPECT_TRUE(Read().bounds.empty());
  files_.Write("memory/pod/memory.limit_in_bytes", "5000\n");
  files_.Write("memory/pod/memory.stat",
               "cache 4000\nrss 100\nshmem 5\ntotal_cache 4000\ntotal_rss 900\ntotal_shmem 50\n");
  EXPECT_EQ(Share(), 5000u - 950);
  EXPECT_EQ(Share(300), 5000u - 650);
  EXPECT_EQ(Share(300, true), 5000u - 650);
  EXPECT_TRUE(Read().problem.ok()) << Read().problem.message();
}

TEST_F(CgroupV1, ALimitAboveTheMountShowsInTheStat) {
  files_.WriteMembership("4:memory:/docker/4f\n");
  files_.Write("memory/memory.limit_in_bytes", "9223372036854771712\n");
  files_.Write("memory/memory.stat", "total_rss 100\nhierarchical_memory_limit 3000\n");
  EXPECT_EQ(Share(), 2900u);
}

TEST_F(CgroupV1, WithoutTotalsThePlainFiguresCount) {
  files_.WriteMembership("4:cpu,memory:/a\n");
  files_.Write("memory/a/memory.limit_in_bytes", "3000\n");
  files_.Write("memory/a/memory.stat", "rss 100\nshmem 20\n");
  EXPECT_EQ(Share(), 2880u);
}

TEST_F(CgroupTest, InAHybridTreeBothHierarchiesCount) {
  files_.WriteMembership("4:memory:/one\n0::/two\n");
  files_.Write("memory/one/memory.limit_in_bytes", "3000\n");
  files_.Write("memory/one/memory.stat", "total_rss 0\n");
  files_.Write("unified/two/cgroup.procs", "");
  EXPECT_EQ(Share(), 3000u);
  files_.Write("unified/two/memory.max", "2000\n");
  files_.Write("unified/two/memory.stat", "anon 0\n");
  EXPECT_EQ(Share(), 2000u);
}

TEST(Cgroup, ReadsThisMachineWithoutAProblem) {
  const auto reading = ReadCgroup({});
  ASSERT_TRUE(reading.ok()) << reading.status().message();
  EXPECT_TRUE(reading->problem.ok()) << reading->problem.message();
}

}  // namespace
}  // namespace espalier
