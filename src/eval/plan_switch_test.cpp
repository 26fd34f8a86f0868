#include "eval/plan_switch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "eval/fake_engine_for_test.h"

namespace espalier {
namespace {

using test::FakeEngine;
using test::SomeWindows;
using ::testing::HasSubstr;

constexpr int64_t kSwitchAt = 6;

// The mean over the tokens behind the switch, of rows that the fake engine would give: `before` blocks skipped by each
// of the first kSwitchAt tokens, `after` by each token from there on.
double ExpectedNll(const Windows& windows, double before, double after) {
  Moments nll;
  for (int64_t w = 0; w < windows.count(); ++w) {
    const auto tokens = windows.at(w);
    for (size_t position = kSwitchAt; position + 1 < tokens.size(); ++position) {
      const auto n_after = static_cast<double>(position) - kSwitchAt;
      const double mean = (kSwitchAt * before + n_after * after) / static_cast<double>(position);
      nll.Add(test::PlainNll(FakeEngine::Row(tokens[position], after, mean), tokens[position + 1]));
    }
  }
  return nll.mean();
}

TEST(PlanSwitch, ScoresEveryWayWithItsOwnPast) {
  FakeEngine engine;
  const Windows windows = SomeWindows(Protocol::kGptq, 16, 4);
  const auto result = MeasurePlanSwitch(&engine, *Plan::ParseDrop("a0,f0", 1), windows, kSwitchAt);
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_NEAR(result->dense.mean_nll.value, ExpectedNll(windows, 0, 0), 1e-6);
  EXPECT_NEAR(result->fresh_plan.mean_nll.value, ExpectedNll(windows, 2, 2), 1e-6);
  EXPECT_NEAR(result->dense_to_plan.mean_nll.value, ExpectedNll(windows, 0, 2), 1e-6);
  // The attention block is back, but the running sequence has to skip it; the FFN block serves at once.
  EXPECT_NEAR(result->plan_to_dense.mean_nll.value, ExpectedNll(windows, 2, 1), 1e-6);
  EXPECT_EQ(result->skipped_blocks, 1);
  EXPECT_EQ(result->plan_to_dense_reprefilled.mean_nll.value, result->dense.mean_nll.value);
  EXPECT_NEAR(result->dense_to_plan.excess_nll.value,
              result->dense_to_plan.mean_nll.value - result->fresh_plan.mean_nll.value, 1e-12);
  EXPECT_NEAR(result->plan_to_dense.excess_nll.value,
              result->plan_to_dense.mean_nll.value - result->dense.mean_nll.value, 1e-12);
  EXPECT_EQ(result->plan_to_dense_reprefilled.excess_nll.value, 0);
  EXPECT_EQ(result->subject.tokens_scored, 4 * 9);
  EXPECT_EQ(result->subject.plan, "a0=0 f0=0");
  EXPECT_FALSE(engine.has_sequences());
  EXPECT_TRUE(engine.plan().dense());
}

TEST(PlanSwitch, AnFfnBlockIsNeverMissed) {
  FakeEngine engine;
  const Windows windows = SomeWindows(Protocol::kGptq, 16, 3);
  const auto result = MeasurePlanSwitch(&engine, *Plan::ParseDrop("f0", 1), windows, kSwitchAt);
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(result->skipped_blocks, 0);
  EXPECT_NEAR(result->plan_to_dense.mean_nll.value, ExpectedNll(windows, 1, 0), 1e-6);
}

TEST(PlanSwitch, ReportsWhatTransitionsCost) {
  FakeEngine engine;
  const auto result = MeasurePlanSwitch(&engine, *Plan::ParseDrop("a0,f0", 1), SomeWindows(Protocol::kGptq, 16, 5), 8);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->to_plan.transitions, 5);
  EXPECT_EQ(result->to_plan.released_bytes, 200);
  EXPECT_EQ(result->to_plan.loaded_bytes, 0);
  EXPECT_EQ(result->to_plan.mean_ms, 2);
  EXPECT_EQ(result->to_dense.loaded_bytes, 200);
  EXPECT_EQ(result->to_dense.mean_ms, 4);
  EXPECT_EQ(result->to_dense.max_ms, 4);
  EXPECT_EQ(result->to_dense.peak_bytes, 1000u);
}

TEST(PlanSwitch, ScoresOnlyWhatTheProtocolScores) {
  FakeEngine engine;
  const Windows windows = SomeWindows(Protocol::kLlama, 16, 2);  // first target 9
  const auto early = MeasurePlanSwitch(&engine, *Plan::ParseDrop("f0", 1), windows, 3);
  ASSERT_TRUE(early.ok()) << early.status().message();
  EXPECT_EQ(early->subject.tokens_scored, 2 * 7);
  const auto late = MeasurePlanSwitch(&engine, *Plan::ParseDrop("f0", 1), windows, 12);
  ASSERT_TRUE(late.ok());
  EXPECT_EQ(late->subject.tokens_scored, 2 * 3);
}

TEST(PlanSwitch, RefusesASwitchOutsideTheWindow) {
  FakeEngine engine;
  const Windows windows = SomeWindows(Protocol::kGptq, 16, 2);
  for (const int64_t at : {int64_t{0}, int64_t{15}, int64_t{-3}}) {
    const auto result = MeasurePlanSwitch(&engine, *Plan::ParseDrop("f0", 1), windows, at);
    ASSERT_FALSE(result.ok()) << at;
    EXPECT_THAT(result.status().message(), HasSubstr("1 to 14"));
  }
  EXPECT_TRUE(MeasurePlanSwitch(&engine, *Plan::ParseDrop("f0", 1), windows, 14).ok());
}

TEST(PlanSwitch, IsDenseAgainAfterAnError) {
  FakeEngine engine;
  engine.FailApplyAt(2);  // the way back of the first window
  const auto result = MeasurePlanSwitch(&engine, *Plan::ParseDrop("a0", 1), SomeWindows(Protocol::kGptq, 16, 2), 8);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().message(), "disk gone");
  EXPECT_TRUE(engine.plan().dense());
  EXPECT_FALSE(engine.has_sequences());
}

}  // namespace
}  // namespace espalier
