#include "eval/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace espalier {
namespace {

TEST(Moments, MeanAndErrorAreThoseWorkedOutByHand) {
  Moments moments;
  for (const double x : {1.0, 2.0, 3.0, 4.0}) {
    moments.Add(x);
  }
  EXPECT_EQ(moments.count(), 4);
  EXPECT_DOUBLE_EQ(moments.mean(), 2.5);
  EXPECT_DOUBLE_EQ(moments.mean_error(), std::sqrt(1.25 / 3));
}

TEST(Moments, FewSamplesHaveNoError) {
  Moments moments;
  EXPECT_EQ(moments.mean(), 0);
  EXPECT_EQ(moments.mean_error(), 0);
  moments.Add(5);
  EXPECT_EQ(moments.mean(), 5);
  EXPECT_EQ(moments.mean_error(), 0);
  for (int i = 0; i < 9; ++i) {
    moments.Add(5);
  }
  EXPECT_EQ(moments.mean_error(), 0);
}

// llama-perplexity writes the error of a log ratio as sqrt(ea^2 + eb^2 - 2 cov); ours is the error of the differences.
TEST(Moments, ErrorOfDifferencesHoldsTheCovariance) {
  const std::vector<double> a = {1.0, 2.5, 0.3, 4.4, 2.2};
  const std::vector<double> b = {1.2, 2.0, 0.5, 4.0, 2.9};
  Moments of_a, of_b, of_difference;
  double sum_ab = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    of_a.Add(a[i]);
    of_b.Add(b[i]);
    of_difference.Add(a[i] - b[i]);
    sum_ab += a[i] * b[i];
  }
  const double covariance = (sum_ab / 5 - of_a.mean() * of_b.mean()) / 4;
  const double expected = std::sqrt(std::pow(of_a.mean_error(), 2) + std::pow(of_b.mean_error(), 2) - 2 * covariance);
  EXPECT_NEAR(of_difference.mean_error(), expected, 1e-12);
}

TEST(Statistics, ErrorsAreCarriedThroughFunctions) {
  const Estimate perplexity = PerplexityOf({2.0, 0.1});
  EXPECT_DOUBLE_EQ(perplexity.value, std::exp(2.0));
  EXPECT_DOUBLE_EQ(perplexity.error, 0.1 * std::exp(2.0));
  const Estimate root = RootOf({4.0, 0.4});
  EXPECT_DOUBLE_EQ(root.value, 2.0);
  EXPECT_DOUBLE_EQ(root.error, 0.1);
  EXPECT_EQ(RootOf({0, 0}).error, 0);
  const Estimate share = ShareOf(3, 4);
  EXPECT_DOUBLE_EQ(share.value, 0.75);
  EXPECT_DOUBLE_EQ(share.error, std::sqrt(0.75 * 0.25 / 3));
  EXPECT_EQ(ShareOf(0, 0).value, 0);
}

TEST(Statistics, PercentilesInterpolate) {
  const std::vector<float> values = {0, 10, 20, 30};
  EXPECT_DOUBLE_EQ(Percentile(values, 0), 0);
  EXPECT_DOUBLE_EQ(Percentile(values, 1), 30);
  EXPECT_DOUBLE_EQ(Percentile(values, 0.5), 15);
  EXPECT_DOUBLE_EQ(Percentile(values, 0.9), 27);
  EXPECT_DOUBLE_EQ(Percentile(std::vector<float>{7}, 0.3), 7);
}

}  // namespace
}  // namespace espalier
