#include "serving/token_rate.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

LoopTime At(double seconds) { return LoopTime(Ticks(3'600'000 + 1000 * seconds)); }

TEST(TokenRate, NoTimeIsNoRate) {
  TokenRate rate;
  EXPECT_EQ(rate.Observe(0, At(0)), 0);
  EXPECT_EQ(rate.Observe(100, At(0)), 0);
}

TEST(TokenRate, IsTheAverageSinceTheBeginningAtFirst) {
  TokenRate rate;
  rate.Observe(0, At(0));
  EXPECT_DOUBLE_EQ(rate.Observe(10, At(1)), 10);
  EXPECT_DOUBLE_EQ(rate.Observe(40, At(2)), 20);
}

TEST(TokenRate, ForgetsWhatWasBeforeTheLastSeconds) {
  TokenRate rate;
  double last = 0;
  for (int tenth = 0; tenth <= 50; ++tenth) {
    last = rate.Observe(1000 * tenth, At(0.1 * tenth));
  }
  EXPECT_NEAR(last, 10000, 1);
  for (int tenth = 51; tenth <= 82; ++tenth) {
    last = rate.Observe(50'000, At(0.1 * tenth));
  }
  EXPECT_EQ(last, 0);
}

TEST(TokenRate, AcrossALongPauseItIsThePausesOwn) {
  TokenRate rate;
  rate.Observe(0, At(0));
  rate.Observe(300, At(1));
  EXPECT_DOUBLE_EQ(rate.Observe(400, At(101)), 1);
}

}  // namespace
}  // namespace espalier
