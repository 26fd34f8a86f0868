#include "eval/dense_predictions.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "eval/scoring.h"
#include "eval/softmax_kernel.h"

namespace espalier {
namespace {

std::vector<float> RandomLogits(size_t n, float spread, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(n);
  for (float& logit : logits) {
    logit = normal(generator);
  }
  return logits;
}

TEST(SoftmaxKernel, ExponentialsAreAccurateOverTheWholeRange) {
  std::vector<float> x;
  for (double v = 0; v > -86; v -= 0.0137) {
    x.push_back(static_cast<float>(v));
  }
  std::vector<float> out(x.size());
  ExponentialsOf(x, 0, out);
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = std::exp(static_cast<double>(x[i]));
    EXPECT_NEAR(static_cast<double>(out[i]) / expected, 1, 4e-7) << x[i];
  }
  const std::vector<float> far = {-87.5F, -1000.0F, -std::numeric_limits<float>::infinity()};
  out.resize(far.size());
  ExponentialsOf(far, 0, out);
  EXPECT_EQ(out, std::vector<float>(3, 0.0F));
}

TEST(SoftmaxKernel, EveryLengthIsSummedWhole) {
  for (const size_t n : {1U, 31U, 32U, 33U, 511U, 512U, 513U, 1100U}) {
    const std::vector<float> logits(n, -1.0F);
    const std::vector<uint16_t> ones(n, 0x3F80);  // 1.0
    const ShiftedSums sums = SumShifted(logits, 1.0F, ones);
    EXPECT_NEAR(sums.exponentials, std::exp(-2.0) * static_cast<double>(n), 1e-6 * static_cast<double>(n));
    EXPECT_EQ(sums.weighted, -2.0 * static_cast<double>(n));
    EXPECT_EQ(MaxOf(logits), -1.0F);
  }
}

class Predictions : public testing::TestWithParam<float> {};

TEST_P(Predictions, LossIsWithinAThousandthOfTheExactOne) {
  constexpr size_t kVocab = 8192;
  constexpr int kRows = 64;
  DensePredictions dense(kRows, kVocab);
  double exact = 0;
  double kept = 0;
  double itself = 0;
  for (int row = 0; row < kRows; ++row) {
    const auto p = RandomLogits(kVocab, GetParam(), static_cast<uint32_t>(row));
    auto q = p;
    const auto noise = RandomLogits(kVocab, 0.5F, static_cast<uint32_t>(1000 + row));
    for (size_t i = 0; i < kVocab; ++i) {
      q[i] += noise[i];
    }
    ASSERT_TRUE(dense.Keep(row, p));
    const auto target = static_cast<int32_t>(row * 17);
    const WindowLoss loss = dense.Compare(row, q, target);
    const RowComparison reference = CompareRows(p, q, target);
    EXPECT_NEAR(loss.nll, reference.nll_plan, 2e-6);
    EXPECT_GE(loss.kl, 0);
    exact += reference.kl;
    kept += loss.kl;
    itself += dense.Compare(row, p, target).kl;
  }
  EXPECT_NEAR(kept / exact, 1, 1e-3);
  EXPECT_LT(itself / kRows, 4e-6);
}

INSTANTIATE_TEST_SUITE_P(Spreads, Predictions, testing::Values(0.5F, 2.0F, 5.0F));

TEST(DensePredictions, ValuesThatAreNotNumbersAreNotHidden) {
  DensePredictions dense(1, 4);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(dense.Keep(0, std::vector<float>{0, nan, 0, 0}));
  ASSERT_TRUE(dense.Keep(0, std::vector<float>{0, 1, 2, 3}));
  EXPECT_FALSE(std::isfinite(dense.Compare(0, std::vector<float>{0, nan, 0, 0}, 1).kl));
}

TEST(DensePredictions, APredictionWithoutMassWhereTheDenseModelHasSomeIsFarAway) {
  DensePredictions dense(1, 2);
  ASSERT_TRUE(dense.Keep(0, std::vector<float>{0, 0}));
  const WindowLoss loss = dense.Compare(0, std::vector<float>{0, -50}, 1);
  EXPECT_NEAR(loss.kl, 0.5 * std::log(0.5) + 0.5 * (std::log(0.5) + 50), 1e-4);
  EXPECT_NEAR(loss.nll, 50, 1e-5);
}

}  // namespace
}  // namespace espalier
