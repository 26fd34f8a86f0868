#include "serving/recent_workloads.h"

#include <gtest/gtest.h>

#include <random>
#include <utility>
#include <vector>

namespace espalier {
namespace {

constexpr double kHoldMs = 1000;

LoopTime At(double ms) { return LoopTime(Ticks(3'600'000 + ms)); }

TEST(RecentWorkloads, RoomIsHeldForAWhile) {
  RecentWorkloads recent(kHoldMs);
  recent.Observe(Workload::Uniform(4, 100), At(0));
  recent.Observe(Workload::Uniform(1, 50), At(1000));
  EXPECT_EQ(recent.Held(At(1000)), Workload::Uniform(4, 100));
  recent.Observe(Workload::Uniform(1, 50), At(1001));
  EXPECT_EQ(recent.Held(At(1001)), Workload::Uniform(1, 50));
  EXPECT_EQ(recent.Remembered(), Workload::Uniform(4, 100)) << "and remembered for longer";
  recent.Observe(Workload::Uniform(1, 50), At(RecentWorkloads::kRemembered * kHoldMs));
  EXPECT_EQ(recent.Remembered(), Workload::Uniform(4, 100));
  recent.Observe(Workload::Uniform(1, 50), At(RecentWorkloads::kRemembered * kHoldMs + 1));
  EXPECT_EQ(recent.Remembered(), Workload::Uniform(1, 50));
}

TEST(RecentWorkloads, CountsFromWhenItWasLastSeen) {
  RecentWorkloads recent(kHoldMs);
  recent.Observe(Workload::Uniform(4, 100), At(0));
  recent.Observe(Workload::Uniform(4, 100), At(900));
  recent.Observe(Workload::Uniform(1, 50), At(1900));
  EXPECT_EQ(recent.Held(At(1900)), Workload::Uniform(4, 100));
}

TEST(RecentWorkloads, ManyShortOnesAndALongOneNeedRoomForBoth) {
  RecentWorkloads recent(kHoldMs);
  recent.Observe(Workload::Uniform(8, 10), At(0));
  recent.Observe(Workload::Uniform(1, 60), At(10));
  EXPECT_EQ(recent.Held(At(10)), (Workload{.n_sequences = 8, .kv_cells = 80, .longest_sequence = 60}));
}

TEST(RecentWorkloads, AfterAResetThereIsNothingElse) {
  RecentWorkloads recent(kHoldMs);
  recent.Observe(Workload::Uniform(4, 100), At(0));
  recent.Reset(Workload::Uniform(1, 50), At(1));
  EXPECT_EQ(recent.Held(At(1)), Workload::Uniform(1, 50));
  EXPECT_EQ(recent.Remembered(), Workload::Uniform(1, 50));
}

TEST(RecentWorkloads, IsWhatLookingThroughEverythingWouldFind) {
  std::mt19937 random(5);
  for (int run = 0; run < 50; ++run) {
    RecentWorkloads recent(kHoldMs);
    std::vector<std::pair<double, Workload>> all;
    double now = 0;
    for (int i = 0; i < 200; ++i) {
      now += static_cast<double>(random() % 400);
      const Workload workload = {static_cast<int>(random() % 5), static_cast<int64_t>(random() % 9),
                                 static_cast<int64_t>(random() % 5)};
      all.emplace_back(now, workload);
      recent.Observe(workload, At(now));
      Workload held = workload;
      Workload remembered = workload;
      for (const auto& [at, seen] : all) {
        held = now - at <= kHoldMs ? Max(held, seen) : held;
        remembered = now - at <= RecentWorkloads::kRemembered * kHoldMs ? Max(remembered, seen) : remembered;
      }
      EXPECT_EQ(recent.Held(At(now)), held);
      EXPECT_EQ(recent.Remembered(), remembered);
    }
  }
}

}  // namespace
}  // namespace espalier
