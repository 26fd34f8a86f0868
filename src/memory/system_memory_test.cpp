#include "memory/system_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>

#include "base/bytes.h"
#include "base/process_memory.h"
#include "memory/fake_cgroup_for_test.h"

namespace espalier {
namespace {

TEST(SystemMemory, ReadsTotalAndAvailableInBytes) {
  FakeCgroup files;
  files.WriteMeminfo("MemTotal:       16384 kB\nMemFree:          100 kB\nMemAvailable:    4096 kB\n");
  const auto memory = ReadSystemMemory(files.meminfo());
  ASSERT_TRUE(memory.ok()) << memory.status().message();
  EXPECT_EQ(memory->total_bytes, 16 * kMiB);
  EXPECT_EQ(memory->available_bytes, 4 * kMiB);
}

TEST(SystemMemory, ReadsThisMachine) {
  const auto memory = ReadSystemMemory();
  ASSERT_TRUE(memory.ok()) << memory.status().message();
  EXPECT_GT(memory->available_bytes, 0u);
  EXPECT_LT(memory->available_bytes, memory->total_bytes);
}

TEST(SystemMemory, AnOldKernelIsUnsupportedAndGarbageIsCorrupt) {
  FakeCgroup files;
  EXPECT_EQ(ReadSystemMemory(files.meminfo()).status().code(), ErrorCode::kNotFound);
  files.WriteMeminfo("MemTotal: 16384 kB\nMemFree: 100 kB\n");
  EXPECT_EQ(ReadSystemMemory(files.meminfo()).status().code(), ErrorCode::kUnsupported);
  for (const char* available : {"lots", "-4 kB", "9999999999999999999 kB", "99999999999999999999999 kB", ""}) {
    files.WriteMeminfo(std::string("MemTotal: 16384 kB\nMemAvailable: ") + available);
    EXPECT_EQ(ReadSystemMemory(files.meminfo()).status().code(), ErrorCode::kCorrupt) << available;
  }
}

TEST(OwnAnonymousBytes, FollowsWhatIsAllocatedAndAgreesWithTheKernelsWalk) {
  constexpr size_t kBytes = 64 * kMiB;
  const auto before = ReadOwnAnonymousBytes();
  ASSERT_TRUE(before.ok()) << before.status().message();
  void* const block = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(block, MAP_FAILED);
  std::memset(block, 1, kBytes);
  const auto during = ReadOwnAnonymousBytes();
  const auto walked = ReadProcessMemory();
  ::munmap(block, kBytes);
  const auto after = ReadOwnAnonymousBytes();
  ASSERT_TRUE(during.ok() && walked.ok() && after.ok());
  const auto near = [](uint64_t a, uint64_t b) { return (a > b ? a - b : b - a) <= 4 * kMiB; };
  EXPECT_PRED2(near, *during, *before + kBytes);
  EXPECT_PRED2(near, *during, walked->anonymous_bytes);
  EXPECT_PRED2(near, *after, *before);
}

TEST(OwnAnonymousBytes, CountersThatDisagreeGiveZeroAndGarbageIsCorrupt) {
  FakeCgroup files;
  files.WriteMeminfo("100 5 9 1 0 20 0\n");
  EXPECT_EQ(*ReadOwnAnonymousBytes(files.meminfo()), 0u);
  files.WriteMeminfo("100 five\n");
  EXPECT_EQ(ReadOwnAnonymousBytes(files.meminfo()).status().code(), ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace espalier
