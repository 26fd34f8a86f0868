#include "eval/kl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "eval/fake_engine_for_test.h"
#include "eval/scoring.h"

namespace espalier {
namespace {

using test::FakeEngine;
using test::SomeWindows;
using ::testing::HasSubstr;

Plan Drop(const char* blocks) { return *Plan::ParseDrop(blocks, 1); }

TEST(Kl, DenseAgainstDenseIsExactlyNothing) {
  for (const Protocol protocol : {Protocol::kGptq, Protocol::kLlama}) {
    FakeEngine engine;
    const auto result = MeasureKl(&engine, Plan::Dense(1), SomeWindows(protocol, 16, 5));
    ASSERT_TRUE(result.ok()) << result.status().message();
    EXPECT_EQ(result->kl.value, 0);
    EXPECT_EQ(result->kl.error, 0);
    EXPECT_EQ(result->kl_max, 0);
    EXPECT_EQ(result->paper.value, 0);
    EXPECT_EQ(result->log_perplexity_ratio.value, 0);
    EXPECT_EQ(result->delta_p_rms.value, 0);
    EXPECT_EQ(result->same_top_token.value, 1);
    EXPECT_EQ(result->perplexity_dense.value, result->perplexity_plan.value);
  }
}

// The fake engine's rows differ in one logit: 3 when dense; under the plan 2 for the first token of a window, and 1.75
// for the others (every token before them skipped one block). The divergence is the same whatever the token is.
TEST(Kl, IsTheDivergenceWorkedOutByHand) {
  FakeEngine engine;
  const Windows windows = SomeWindows(Protocol::kGptq, 16, 6);
  const auto result = MeasureKl(&engine, Drop("f0"), windows);
  ASSERT_TRUE(result.ok()) << result.status().message();
  const auto divergence = [](double dense, double plan) {
    const double z_dense = std::exp(dense) + 3, z_plan = std::exp(plan) + 3;
    return std::exp(dense) / z_dense * (dense - plan) - std::log(z_dense) + std::log(z_plan);
  };
  const double first = divergence(3, 2), others = divergence(3, 1.75);
  EXPECT_NEAR(result->kl.value, (first + 14 * others) / 15, 1e-9);
  EXPECT_NEAR(result->kl_max, others, 1e-6);
  EXPECT_NEAR(result->kl_median, others, 1e-6);
  EXPECT_NEAR(result->paper.value, (divergence(2, 3) + 14 * divergence(1.75, 3)) / 15, 1e-9);
  EXPECT_EQ(result->same_top_token.value, 1);
  EXPECT_EQ(result->subject.tokens_scored, 6 * 15);
  EXPECT_EQ(result->subject.plan, "f0=0");
  ASSERT_EQ(result->window_kl.size(), 6u);
  EXPECT_NEAR(result->window_kl[3], result->kl.value, 1e-12);
  EXPECT_NEAR(result->kl_error_over_windows, 0, 1e-9);
  EXPECT_FALSE(engine.has_sequences());
}

TEST(Kl, PerplexitiesAndDeltaPAreOfTheCorrectToken) {
  FakeEngine engine;
  const Windows windows = SomeWindows(Protocol::kLlama, 16, 6);
  const auto result = MeasureKl(&engine, Drop("a0,f0"), windows);
  ASSERT_TRUE(result.ok()) << result.status().message();
  Moments dense, plan, difference, delta, delta_squared;
  for (int64_t w = 0; w < windows.count(); ++w) {
    const auto tokens = windows.at(w);
    for (auto target = static_cast<size_t>(windows.first_target); target < tokens.size(); ++target) {
      const double d = test::PlainNll(FakeEngine::Row(tokens[target - 1], 0, 0), tokens[target]);
      const double p = test::PlainNll(FakeEngine::Row(tokens[target - 1], 2, 2), tokens[target]);
      dense.Add(d);
      plan.Add(p);
      difference.Add(p - d);
      delta.Add(std::exp(-p) - std::exp(-d));
      delta_squared.Add(std::pow(std::exp(-p) - std::exp(-d), 2));
    }
  }
  EXPECT_NEAR(result->perplexity_dense.value, std::exp(dense.mean()), 1e-9);
  EXPECT_NEAR(result->perplexity_plan.value, std::exp(plan.mean()), 1e-9);
  EXPECT_NEAR(result->log_perplexity_ratio.value, difference.mean(), 1e-9);
  EXPECT_NEAR(result->log_perplexity_ratio.error, difference.mean_error(), 1e-9);
  EXPECT_NEAR(result->delta_p.value, delta.mean(), 1e-9);
  EXPECT_NEAR(result->delta_p_rms.value, std::sqrt(delta_squared.mean()), 1e-9);
}

TEST(Kl, HoldsTheLogitsOfOneSubBatchOnly) {
  FakeEngine engine(1024, 8);
  const Windows windows = SomeWindows(Protocol::kGptq, 32, 1);
  ASSERT_TRUE(MeasureKl(&engine, Drop("a0"), windows).ok());
  const auto& batches = engine.batches();
  ASSERT_EQ(batches.size(), 8u);  // 4 sub-batches, dense and plan in turn
  for (size_t i = 0; i < batches.size(); ++i) {
    EXPECT_EQ(batches[i].size(), 8u);
    for (const BatchToken& token : batches[i]) {
      EXPECT_EQ(token.sequence, static_cast<SequenceId>(i % 2));
    }
  }
}

TEST(Kl, NeedsADenseEngine) {
  FakeEngine engine;
  ASSERT_TRUE(engine.Apply(Drop("f0")).ok());
  const auto result = MeasureKl(&engine, Drop("f0"), SomeWindows(Protocol::kGptq, 16, 1));
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(result.status().message(), HasSubstr("'f0=0'"));
  FakeEngine other;
  EXPECT_FALSE(MeasureKl(&other, Plan::Dense(2), SomeWindows(Protocol::kGptq, 16, 1)).ok());
}

TEST(Kl, NeedsCellsForBothSequences) {
  FakeEngine engine(31);
  const auto result = MeasureKl(&engine, Drop("f0"), SomeWindows(Protocol::kGptq, 16, 1));
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(result.status().message(), HasSubstr("32 KV cells"));
}

TEST(Kl, SaysWhereLogitsAreNotNumbers) {
  FakeEngine engine;
  engine.AnswerNanAfter(2);
  const auto result = MeasureKl(&engine, Drop("f0"), SomeWindows(Protocol::kGptq, 32, 1));
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), ErrorCode::kCorrupt);
  EXPECT_FALSE(engine.has_sequences());
}

}  // namespace
}  // namespace espalier
