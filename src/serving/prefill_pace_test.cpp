#include "serving/prefill_pace.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

// As a machine that takes `ms_per_token` would have it.
void Repeat(PrefillPace& pace, int steps, double ms_per_token) {
  for (int i = 0; i < steps; ++i) {
    pace.Observe(pace.tokens(), 0, ms_per_token * static_cast<double>(pace.tokens()));
  }
}

TEST(PrefillPace, FindsTheTokensThatTakeTheTime) {
  PrefillPace pace(200, 2048);
  Repeat(pace, 20, 0.5);
  EXPECT_NEAR(static_cast<double>(pace.tokens()), 400, PrefillPace::kLeast);
  Repeat(pace, 40, 2);
  EXPECT_NEAR(static_cast<double>(pace.tokens()), 100, PrefillPace::kLeast) << "and goes with the machine";
  EXPECT_EQ(pace.tokens() % PrefillPace::kLeast, 0);
}

TEST(PrefillPace, StaysWithinItsBounds) {
  PrefillPace slow(200, 2048);
  Repeat(slow, 20, 1000);
  EXPECT_LE(slow.tokens(), 2 * PrefillPace::kLeast);  // tried out once in a while
  PrefillPace fast(200, 300);
  Repeat(fast, 20, 0.001);
  EXPECT_EQ(fast.tokens(), 300);
  PrefillPace small(200, 4);
  EXPECT_EQ(small.tokens(), 4);
  Repeat(small, 20, 1000);
  EXPECT_EQ(small.tokens(), 4);
}

// How many of `steps` took twice the least, on a machine where a step of `n` tokens takes `ms(n)`.
template <class Cost>
int StepsOfTwiceTheLeast(PrefillPace& pace, int steps, Cost ms) {
  int twice = 0;
  for (int i = 0; i < steps; ++i) {
    twice += pace.tokens() == 2 * PrefillPace::kLeast ? 1 : 0;
    pace.Observe(pace.tokens(), 4, ms(pace.tokens()));
  }
  return twice;
}

TEST(PrefillPace, TakesTwiceTheLeastWhereThatTakesHardlyLonger) {
  PrefillPace pace(200, 2048);
  const auto in_tiles = [](int64_t n) { return 400.0 * static_cast<double>((n + 31) / 32); };
  StepsOfTwiceTheLeast(pace, 20, in_tiles);
  EXPECT_GT(StepsOfTwiceTheLeast(pace, 100, in_tiles), 80);
}

TEST(PrefillPace, SeldomTriesTwiceTheLeastWhereThatTakesTwiceAsLong) {
  PrefillPace pace(200, 2048);
  const auto by_token = [](int64_t n) { return 50.0 * static_cast<double>(n); };
  StepsOfTwiceTheLeast(pace, 20, by_token);
  EXPECT_LE(StepsOfTwiceTheLeast(pace, 1000, by_token), 12);
}

TEST(PrefillPace, GrowsAtMostFourfoldAtOnce) {
  PrefillPace pace(200, 1 << 20);
  const int64_t first = pace.tokens();
  pace.Observe(first, 0, 0.001);
  EXPECT_EQ(pace.tokens(), 4 * first);
}

TEST(PrefillPace, TokensOfDecodingRequestsAreNotHeldAgainstPrompts) {
  PrefillPace alone(200, 2048);
  PrefillPace beside(200, 2048);
  alone.Observe(100, 0, 100);
  beside.Observe(100, 100, 200);
  EXPECT_EQ(alone.tokens(), beside.tokens());
}

TEST(PrefillPace, StepsThatTellNothingChangeNothing) {
  PrefillPace pace(200, 2048);
  Repeat(pace, 20, 0.5);
  const int64_t tokens = pace.tokens();
  pace.Observe(0, 8, 5000);
  pace.Observe(3, 8, 5000);
  pace.Observe(100, 0, 0);
  EXPECT_EQ(pace.tokens(), tokens);
}

}  // namespace
}  // namespace espalier
