#include "serving/limit_watch.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

LoopTime At(double ms) { return LoopTime(Ticks(3'600'000 + ms)); }

TEST(LimitWatch, WhatIsWithinTheLimitIsNothing) {
  LimitWatch watch(At(0));
  watch.Observe(100, 100, Ticks(10), At(1000));
  EXPECT_EQ(watch.violations(), 0);
  EXPECT_EQ(watch.overshoot_byte_seconds(), 0);
}

TEST(LimitWatch, CountsStepsAndWeighsThemByBytesAndTime) {
  LimitWatch watch(At(0));
  watch.Observe(150, 100, Ticks(10), At(1000));
  EXPECT_EQ(watch.violations(), 1);
  EXPECT_DOUBLE_EQ(watch.overshoot_byte_seconds(), 50);
  watch.Observe(100, 100, Ticks(10), At(3000));
  watch.Observe(102, 100, Ticks(10), At(3500));
  EXPECT_EQ(watch.violations(), 2);
  EXPECT_DOUBLE_EQ(watch.overshoot_byte_seconds(), 51) << "the time since the step before it";
}

TEST(LimitWatch, ExcusesWhatCannotHaveBeenMetYet) {
  LimitWatch watch(At(0));
  watch.ExcuseUntil(At(250));
  watch.ExcuseUntil(At(100));  // no shorter than it was
  watch.Observe(101, 100, Ticks(0), At(250));
  EXPECT_EQ(watch.violations(), 0);
  EXPECT_DOUBLE_EQ(watch.overshoot_byte_seconds(), 0.25) << "which is no excuse here";
  watch.Observe(101, 100, Ticks(0), At(251));
  EXPECT_EQ(watch.violations(), 1);
  watch.Excuse(Ticks(50));
  watch.Observe(101, 100, Ticks(0), At(300));
  EXPECT_EQ(watch.violations(), 1);
  watch.Observe(101, 100, Ticks(30), At(330));
  EXPECT_EQ(watch.violations(), 1) << "a step that began in time";
  watch.Observe(101, 100, Ticks(30), At(331));
  EXPECT_EQ(watch.violations(), 2);
}

}  // namespace
}  // namespace espalier
