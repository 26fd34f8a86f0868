#include "control/window_bootstrap.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace espalier {
namespace {

TEST(WindowBootstrap, EqualWindowsLeaveNoDoubt) {
  const WindowBootstrap bootstrap(8, 200, 1);
  const std::vector<double> values(8, 0.25);
  const auto means = bootstrap.Means(values);
  ASSERT_EQ(means.size(), 200u);
  EXPECT_EQ(WindowBootstrap::IntervalOf(0.25, means), (Interval{0.25, 0.25, 0.25}));
}

TEST(WindowBootstrap, SpreadOfTheMeanIsThatOfTheWindowsOverTheRootOfTheirNumber) {
  // Half 0 and half 1: the mean of 64 draws has a standard deviation of 0.5 / 8, so 95 % lie within 1.96 * 0.0625.
  std::vector<double> values(64, 0.0);
  std::fill(values.begin() + 32, values.end(), 1.0);
  const Interval interval = WindowBootstrap::IntervalOf(0.5, WindowBootstrap(64, 4000, 7).Means(values));
  EXPECT_NEAR(interval.low, 0.5 - 0.1225, 0.015);
  EXPECT_NEAR(interval.high, 0.5 + 0.1225, 0.015);
}

TEST(WindowBootstrap, ProportionalPlansHaveARatioWithoutDoubt) {
  const WindowBootstrap bootstrap(4, 100, 3);
  const auto a = bootstrap.Means(std::vector<double>{1, 2, 3, 10});
  const auto b = bootstrap.Means(std::vector<double>{2, 4, 6, 20});
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_DOUBLE_EQ(b[i] / a[i], 2.0);
  }
  EXPECT_NE(*std::min_element(a.begin(), a.end()), *std::max_element(a.begin(), a.end()));
}

TEST(WindowBootstrap, DrawsAreTheSameForTheSameSeed) {
  const std::vector<double> values = {1, 2, 3};
  EXPECT_EQ(WindowBootstrap(3, 50, 5).Means(values), WindowBootstrap(3, 50, 5).Means(values));
  EXPECT_NE(WindowBootstrap(3, 50, 5).Means(values), WindowBootstrap(3, 50, 6).Means(values));
}

TEST(WindowBootstrap, PercentilesAreInterpolated) {
  std::vector<double> resampled(41);
  std::iota(resampled.rbegin(), resampled.rend(), 0.0);  // 40, 39, ..., 0
  EXPECT_EQ(WindowBootstrap::IntervalOf(20, resampled), (Interval{20, 1, 39}));
}

}  // namespace
}  // namespace espalier
