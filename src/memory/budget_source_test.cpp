#include "memory/budget_source.h"

#include <gtest/gtest.h>

#include <limits>
#include <thread>

#include "base/bytes.h"
#include "memory/fake_cgroup_for_test.h"

namespace espalier {
namespace {

constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
constexpr BudgetBase kBase = {.process_bytes = 100, .dense_peak_bytes = 10000};

// The books agree with the kernel.
OwnMemory Own(uint64_t bytes) { return {.managed_bytes = bytes - 100, .process_bytes = 100, .anonymous_bytes = bytes}; }

class FakeSource final : public BudgetSource {
 public:
  struct State {
    Result<std::optional<uint64_t>> limit = std::optional<uint64_t>();
    std::optional<uint64_t> hard;
    Status problem;
  };
  FakeSource(std::string name, State* state) : name_(std::move(name)), state_(state) {}
  std::string_view name() const override { return name_; }
  Result<std::optional<uint64_t>> Limit(const OwnMemory& /*own*/) override { return state_->limit; }
  Result<std::optional<uint64_t>> HardLimit(const OwnMemory& /*own*/) override { return state_->hard; }
  Status problem() const override { return state_->problem; }

 private:
  std::string name_;
  State* state_;
};

class BudgetSourcesTest : public testing::Test {
 protected:
  BudgetSourcesTest() {
    files_.WriteMembership("0::/a\n");
    sources_.Add(std::make_unique<CgroupSource>(files_.options()));
    sources_.Add(std::make_unique<SystemSource>(files_.meminfo()));
  }
  void SetCgroup(const std::string& max, const std::string& high, uint64_t anon) {
    files_.Write("a/memory.max", max);
    files_.Write("a/memory.high", high);
    files_.Write("a/memory.stat", "anon " + std::to_string(anon) + "\nfile 123456789\n");
  }
  void SetAvailable(uint64_t kib) {
    files_.WriteMeminfo("MemTotal: 1000000 kB\nMemAvailable: " + std::to_string(kib) + " kB\n");
  }

  FakeCgroup files_;
  BudgetSources sources_{std::nullopt, kBase};
};

TEST(BudgetSetting, IsABudgetOrAuto) {
  EXPECT_EQ(*ParseBudgetSetting("auto"), std::nullopt);
  EXPECT_EQ(*ParseBudgetSetting("70%"), Budget::Percent(70));
  EXPECT_EQ(*ParseBudgetSetting("4KiB"), Budget::Bytes(4096));
  const auto wrong = ParseBudgetSetting("lots");
  ASSERT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.status().code(), ErrorCode::kInvalidArgument);
  EXPECT_NE(wrong.status().message().find("or auto"), std::string::npos);
}

TEST(OperatorSource, GivesTheBudgetAsItIsAndNoneWhileAuto) {
  OperatorSource source(Budget::Bytes(5000), kBase);
  EXPECT_EQ(**source.Limit(Own(200)), 5000u);
  source.Set(Budget::Percent(50));
  EXPECT_EQ(**source.Limit(Own(200)), 5100u);
  source.Set(std::nullopt);
  EXPECT_EQ(*source.Limit(Own(200)), std::nullopt);
}

TEST(SystemSource, OurOwnGrowthLeavesTheLimitWhereItIs) {
  FakeCgroup files;
  SystemSource source(files.meminfo());
  const uint64_t all = 1000 * kKiB;
  for (uint64_t own_kib : {1, 100, 500, 900, 1000}) {
    files.WriteMeminfo("MemTotal: 5000 kB\nMemAvailable: " + std::to_string(1000 - own_kib) + " kB\n");
    EXPECT_EQ(**source.Limit(Own(own_kib * kKiB)), all / 10 * 9) << own_kib;
  }
}

TEST(SystemSource, GrowingToTheLimitAgainAndAgainComesToRestAtNineTenths) {
  FakeCgroup files;
  SystemSource source(files.meminfo());
  uint64_t own = 10 * kKiB;
  for (int i = 0; i < 20; ++i) {
    files.WriteMeminfo("MemTotal: 5000 kB\nMemAvailable: " + std::to_string(1000 - own / kKiB) + " kB\n");
    own = **source.Limit(Own(own));
  }
  EXPECT_EQ(own, 900 * kKiB);
}

TEST(SystemSource, MemoryBeyondTheBooksIsTakenOffTheLimitAndMemoryNotYetTouchedIsNot) {
  FakeCgroup files;
  files.WriteMeminfo("MemTotal: 5000 kB\nMemAvailable: 500 kB\n");
  SystemSource source(files.meminfo());
  const uint64_t limit = (500 + 500) * kKiB / 10 * 9;
  OwnMemory own = {.managed_bytes = 400 * kKiB, .process_bytes = 40 * kKiB, .anonymous_bytes = 500 * kKiB};
  EXPECT_EQ(**source.Limit(own), limit - 60 * kKiB);
  own.managed_bytes = 600 * kKiB;
  EXPECT_EQ(**source.Limit(own), limit);
}

TEST(DeviceSource, CountsManagedBytesAsOursAndTheProcessBesideTheDevice) {
  DeviceMemory memory = {.free_bytes = 6000, .total_bytes = 20000};
  DeviceSource source([&]() -> Result<DeviceMemory> { return memory; });
  const OwnMemory own = {.managed_bytes = 4000, .process_bytes = 300, .anonymous_bytes = 500};
  EXPECT_EQ(**source.Limit(own), 9000u + 300);
  memory.total_bytes = 0;
  EXPECT_EQ(**source.Limit(own), 9000u + 300);
  memory.total_bytes = 8000;
  EXPECT_EQ(**source.Limit(own), 7200u + 300);
  memory = {.free_bytes = kMax, .total_bytes = 0};
  EXPECT_GT(**source.Limit(own), kMax / 100 * 89);
}

TEST(CgroupSource, TakesTheMarginOffWhatOthersLeave) {
  FakeCgroup files;
  files.WriteMembership("0::/a\n");
  files.Write("a/memory.max", "20000\n");
  files.Write("a/memory.high", "10000\n");
  files.Write("a/memory.stat", "anon 3000\n");
  CgroupSource source(files.options());
  EXPECT_EQ(**source.Limit(Own(1000)), 7200u);       // 90 % of 10000 - 2000
  EXPECT_EQ(**source.HardLimit(Own(1000)), 17640u);  // 98 % of 20000 - 2000
  files.Write("a/memory.stat", "anon 30000\n");
  EXPECT_EQ(**source.Limit(Own(1000)), 0u);
}

TEST_F(BudgetSourcesTest, AutoIsTheSmallestOfAllSourcesAndSaysWhose) {
  SetCgroup("max", "max", 0);
  SetAvailable(1000);
  BudgetReading reading = sources_.Read(Own(24 * kKiB));
  EXPECT_EQ(reading.bytes, 943718u);  // 90 % of 1 MiB
  EXPECT_EQ(reading.source, "system");
  SetCgroup("500000\n", "max", 24 * kKiB);
  reading = sources_.Read(Own(24 * kKiB));
  EXPECT_EQ(reading.bytes, 450000u);
  EXPECT_EQ(reading.source, "cgroup");
  SetCgroup("500000\n", "max", 24 * kKiB + 100000);  // a neighbour in our container
  EXPECT_EQ(sources_.Read(Own(24 * kKiB)).bytes, 360000u);
  SetAvailable(100);  // or outside of it
  EXPECT_EQ(sources_.Read(Own(24 * kKiB)).source, "system");
  EXPECT_TRUE(sources_.last_error().ok()) << sources_.last_error().message();
}

TEST_F(BudgetSourcesTest, AnOperatorsBudgetHoldsAgainstAllButTheHardLimit) {
  SetCgroup("50000\n", "8000\n", 1000);
  SetAvailable(1);
  sources_.SetOperator(Budget::Bytes(40000));
  BudgetReading reading = sources_.Read(Own(1000));
  EXPECT_EQ(reading.bytes, 40000u);
  EXPECT_EQ(reading.source, "operator");
  SetCgroup("30000\n", "8000\n", 1000);
  reading = sources_.Read(Own(1000));
  EXPECT_EQ(reading.bytes, 29400u);
  EXPECT_EQ(reading.source, "cgroup");
  sources_.SetOperator(Budget::Percent(50));
  EXPECT_EQ(sources_.setting(), Budget::Percent(50));
  EXPECT_EQ(sources_.Read(Own(1000)).bytes, 5100u);
  sources_.SetOperator(std::nullopt);
  EXPECT_EQ(sources_.setting(), std::nullopt);
  EXPECT_EQ(sources_.Read(Own(1000)).bytes, 1821u);  // 90 % of 1000 + 1024
}

TEST_F(BudgetSourcesTest, ASourceThatFailsIsPassedOverAndItsErrorKeptUntilItIsMended) {
  SetCgroup("500000\n", "max", 0);
  EXPECT_EQ(sources_.Read(Own(1000)).source, "cgroup");
  EXPECT_EQ(sources_.last_error().code(), ErrorCode::kNotFound);
  EXPECT_NE(sources_.last_error().message().find("system: "), std::string::npos) << sources_.last_error().message();
  files_.WriteMeminfo("MemTotal: x");
  EXPECT_EQ(sources_.Read(Own(1000)).bytes, 450000u);
  EXPECT_EQ(sources_.last_error().code(), ErrorCode::kCorrupt);
  SetAvailable(1000000);
  EXPECT_EQ(sources_.Read(Own(1000)).bytes, 450000u);
  EXPECT_TRUE(sources_.last_error().ok());
}

TEST_F(BudgetSourcesTest, AGroupRemovedInMidRunLeavesTheOtherSources) {
  SetCgroup("500000\n", "max", 0);
  SetAvailable(1000);
  EXPECT_EQ(sources_.Read(Own(1000)).source, "cgroup");
  files_.Remove("a");
  EXPECT_EQ(sources_.Read(Own(1000)).source, "system");
  EXPECT_TRUE(sources_.last_error().ok());
}

TEST_F(BudgetSourcesTest, AFileOfGarbageLeavesTheLimitsBesideItAndIsReported) {
  SetCgroup("half a numb", "400000\n", 0);
  SetAvailable(1000000);
  EXPECT_EQ(sources_.Read(Own(1000)).bytes, 360000u);
  EXPECT_NE(sources_.last_error().message().find("memory.max"), std::string::npos) << sources_.last_error().message();
}

TEST(BudgetSources, WithoutAnyLimitThereIsNone) {
  BudgetSources sources(std::nullopt, kBase);
  FakeSource::State state;
  sources.Add(std::make_unique<FakeSource>("fake", &state));
  EXPECT_EQ(sources.Read(Own(1000)).bytes, kMax);
  EXPECT_EQ(sources.Read(Own(1000)).source, "none");
  state.limit = IoError("broken");
  EXPECT_EQ(sources.Read(Own(1000)).source, "none");
  EXPECT_EQ(sources.last_error().message(), "fake: broken");
}

TEST(BudgetSources, TheFirstOfSeveralErrorsIsKept) {
  BudgetSources sources(std::nullopt, kBase);
  FakeSource::State one = {.limit = std::optional<uint64_t>(7), .hard = std::nullopt, .problem = IoError("odd")};
  FakeSource::State two = {.limit = IoError("broken"), .hard = std::nullopt, .problem = Status::Ok()};
  sources.Add(std::make_unique<FakeSource>("one", &one));
  sources.Add(std::make_unique<FakeSource>("two", &two));
  EXPECT_EQ(sources.Read(Own(1000)).bytes, 7u);
  EXPECT_EQ(sources.last_error().message(), "one: odd");
}

TEST(BudgetSources, TheSettingMayChangeFromAnotherThread) {
  BudgetSources sources(std::nullopt, kBase);
  FakeSource::State state = {.limit = std::optional<uint64_t>(900), .hard = 5000, .problem = Status::Ok()};
  sources.Add(std::make_unique<FakeSource>("fake", &state));
  std::thread setter([&] {
    for (int i = 0; i < 2000; ++i) {
      sources.SetOperator(i % 2 == 0 ? std::optional(Budget::Bytes(4000)) : std::nullopt);
    }
    sources.SetOperator(Budget::Bytes(4000));
  });
  for (int i = 0; i < 2000; ++i) {
    const BudgetReading reading = sources.Read(Own(1000));
    EXPECT_EQ(reading.bytes, reading.source == "operator" ? 4000u : 900u);
  }
  setter.join();
  EXPECT_EQ(sources.Read(Own(1000)).bytes, 4000u);
}

}  // namespace
}  // namespace espalier
