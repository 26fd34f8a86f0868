#include "eval/scoring.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace espalier {
namespace {

std::vector<float> Logs(const std::vector<double>& weights) {
  std::vector<float> logits;
  for (const double weight : weights) {
    logits.push_back(static_cast<float>(std::log(weight)));
  }
  return logits;
}

TEST(Scoring, LikelihoodIsTheSoftmax) {
  const auto logits = Logs({1, 2, 3});
  EXPECT_NEAR(NegativeLogLikelihood(logits, 0), std::log(6.0), 1e-6);
  EXPECT_NEAR(NegativeLogLikelihood(logits, 2), std::log(2.0), 1e-6);
}

TEST(Scoring, LargeLogitsDoNotOverflow) {
  EXPECT_NEAR(NegativeLogLikelihood(std::vector<float>{1e4f, 1e4f, -1e4f}, 0), std::log(2.0), 1e-12);
  EXPECT_NEAR(NegativeLogLikelihood(std::vector<float>{1e4f, -1e4f}, 1), 2e4, 1e-9);
}

TEST(Scoring, NotFiniteInGivesNotFiniteOut) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(std::isfinite(NegativeLogLikelihood(std::vector<float>{kNan, 0, 1}, 1)));
  EXPECT_FALSE(std::isfinite(NegativeLogLikelihood(std::vector<float>{0, kNan, 1}, 2)));
  EXPECT_FALSE(std::isfinite(NegativeLogLikelihood(std::vector<float>{0, kInfinity, 1}, 2)));
}

TEST(Scoring, DivergencesAreThoseWorkedOutByHand) {
  const auto row = CompareRows(Logs({0.5, 0.5}), Logs({0.9, 0.1}), 1);
  EXPECT_NEAR(row.kl, 0.5 * std::log(0.5 / 0.9) + 0.5 * std::log(0.5 / 0.1), 1e-6);
  EXPECT_NEAR(row.paper, 0.9 * std::log(0.9 / 0.5) + 0.1 * std::log(0.1 / 0.5), 1e-6);
  EXPECT_NEAR(row.nll_dense, std::log(2.0), 1e-6);
  EXPECT_NEAR(row.nll_plan, std::log(10.0), 1e-6);
  EXPECT_TRUE(row.same_top);
  EXPECT_FALSE(CompareRows(Logs({0.2, 0.8}), Logs({0.9, 0.1}), 0).same_top);
}

std::vector<float> Wavy(size_t n, double phase) {
  std::vector<float> logits(n);
  for (size_t i = 0; i < n; ++i) {
    logits[i] = static_cast<float>(8 * std::sin(0.37 * static_cast<double>(i) + phase));
  }
  return logits;
}

TEST(Scoring, EqualRowsDivergeByExactlyNothing) {
  const auto logits = Wavy(8192, 0.4);
  const auto row = CompareRows(logits, logits, 17);
  EXPECT_EQ(row.kl, 0);
  EXPECT_EQ(row.paper, 0);
  EXPECT_EQ(row.nll_dense, row.nll_plan);
}

TEST(Scoring, AConstantAddedToAllLogitsChangesNothing) {
  const auto logits = Wavy(8192, 0.4);
  auto shifted = logits;
  for (float& logit : shifted) {
    logit += 64;  // a power of two beyond every logit costs bits of the mantissa, hence the tolerance
  }
  EXPECT_NEAR(CompareRows(logits, shifted, 5).kl, 0, 1e-10);
}

TEST(Scoring, ComparisonAgreesWithThePlainSum) {
  const auto dense = Wavy(1000, 0.0), plan = Wavy(1000, 0.1);
  double kl = 0;
  for (int32_t i = 0; i < 1000; ++i) {
    const double log_p = -NegativeLogLikelihood(dense, i), log_q = -NegativeLogLikelihood(plan, i);
    kl += std::exp(log_p) * (log_p - log_q);
  }
  const auto row = CompareRows(dense, plan, 3);
  EXPECT_NEAR(row.kl, kl, 1e-12);
  EXPECT_EQ(row.nll_dense, NegativeLogLikelihood(dense, 3));
  EXPECT_EQ(row.nll_plan, NegativeLogLikelihood(plan, 3));
}

}  // namespace
}  // namespace espalier
