#include "control/policy_comparison.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <utility>

#include "control/fake_evaluator_for_test.h"
#include "control/measured_plans.h"

namespace espalier {
namespace {

constexpr int kLayers = 2;

Plan Dropping(const std::string& blocks) { return *Plan::ParseDrop(blocks, kLayers); }

// The first of its plans that fits.
class ScriptedPolicy final : public Policy {
 public:
  explicit ScriptedPolicy(std::vector<Plan> plans) : plans_(std::move(plans)) {}
  const char* name() const override { return "scripted"; }
  Result<Decision> Decide(const Observation& observation) const override {
    for (const Plan& plan : plans_) {
      const Footprint footprint = FootprintOf(observation, plan);
      if (Fits(observation, footprint)) {
        return Decision{plan, footprint, {}};
      }
    }
    return OutOfBudget("nothing scripted fits");
  }
  std::vector<BlockId> DropOrder(int) const override { return {}; }

 private:
  std::vector<Plan> plans_;
};

Contestant Named(const std::string& name, const std::vector<std::vector<std::string>>& instances) {
  Contestant contestant = {name, {}};
  for (const auto& drops : instances) {
    std::vector<Plan> plans;
    for (const std::string& blocks : drops) {
      plans.push_back(blocks.empty() ? Plan::Dense(kLayers) : Dropping(blocks));
    }
    contestant.instances.push_back(std::make_unique<ScriptedPolicy>(std::move(plans)));
  }
  return contestant;
}

template <class... Contestants>
Lineup LineupOf(Contestants... contestants) {
  Lineup lineup;
  (lineup.contestants.push_back(std::move(contestants)), ...);
  return lineup;
}

// Attention blocks take 1000 + 200 of KV, FFN blocks 3000, the rest 5000: 13400 when dense.
ScenarioMemory OneScenario(std::vector<Budget> budgets) {
  ScenarioMemory scenario;
  scenario.scenario = {Workload::Uniform(1, 100), std::move(budgets)};
  MemoryModel& memory = scenario.survey.memory;
  memory.block_bytes = {1000, 3000, 1000, 3000};
  memory.block_staging_bytes = {0, 0, 0, 0};
  memory.global_bytes = 5000;
  memory.kv = {.key_bytes_per_cell = 1, .value_bytes_per_cell = 1, .n_planes = 2, .page_bytes = 1, .capacity = 100};
  scenario.survey.workload = scenario.scenario.workload;
  scenario.survey.Adopt(memory);
  return scenario;
}

// Room for all but one attention block, and for all but one FFN block.
const Budget kLoose = Budget::Bytes(12200);
const Budget kTight = Budget::Bytes(10400);

// Dropping a0 costs 0.2 nats, f0 0.25, a1 0.4, f1 0.8; windows disagree about a0 alone.
FakeEvaluator MakeEvaluator() { return FakeEvaluator({{0.1, 0.25, 0.4, 0.8}, {0.3, 0.25, 0.4, 0.8}}); }

ComparisonOptions Quick() {
  ComparisonOptions options;
  options.timing_calls = 2;
  return options;
}

Result<PolicyComparison> Compare(Lineup lineup, std::vector<Budget> budgets, FakeEvaluator* evaluator,
                                 const Archive* calibration = nullptr) {
  std::vector<ScenarioMemory> scenarios;
  scenarios.push_back(OneScenario(std::move(budgets)));
  return ComparePolicies(std::move(lineup), calibration, std::move(scenarios), evaluator, Quick());
}

void ExpectNear(const Interval& interval, double value, double low, double high) {
  EXPECT_NEAR(interval.value, value, 1e-9);
  EXPECT_NEAR(interval.low, low, 1e-9);
  EXPECT_NEAR(interval.high, high, 1e-9);
}

TEST(PolicyComparison, RatiosAndTheirGeometricMeansAreThoseComputedByHand) {
  FakeEvaluator evaluator = MakeEvaluator();
  const auto result =
      Compare(LineupOf(Named("bad", {{"a1", "f1"}}), Named("table", {{"a0", "f0"}})), {kLoose, kTight}, &evaluator);
  ASSERT_TRUE(result.ok()) << result.status().message();
  ASSERT_EQ(result->cells.size(), 2u);
  const CellResult& loose = result->cells[0];
  EXPECT_EQ(loose.best->plan, Dropping("a0"));
  EXPECT_EQ(loose.best->peak_bytes, 12200u);
  // The least and the greatest resample take the same window twice; both have a probability of a quarter.
  ExpectNear(loose.best->loss, 0.2, 0.1, 0.3);
  ExpectNear(loose.policies[0].loss, 0.4, 0.4, 0.4);
  ExpectNear(*loose.policies[0].ratio, 2, 4.0 / 3, 4);
  ExpectNear(*loose.policies[1].ratio, 1, 1, 1);
  EXPECT_NEAR(loose.policies[0].perplexity, std::exp(2.4), 1e-9);
  ExpectNear(*result->cells[1].policies[0].ratio, 3.2, 3.2, 3.2);

  EXPECT_EQ(result->policies[0].all.cells, 2);
  ExpectNear(result->policies[0].all.ratio, std::sqrt(2 * 3.2), std::sqrt(4.0 / 3 * 3.2), std::sqrt(4 * 3.2));
  ASSERT_EQ(result->policies[0].by_budget.size(), 2u);
  ExpectNear(result->policies[0].by_budget[1].ratio, 3.2, 3.2, 3.2);
  ExpectNear(*result->policies[0].to_table, std::sqrt(2 * 3.2), std::sqrt(4.0 / 3 * 3.2), std::sqrt(4 * 3.2));
  ExpectNear(*result->policies[1].to_table, 1, 1, 1);
  EXPECT_EQ(result->winner, 1u);
  EXPECT_NEAR(result->dense_perplexity, std::exp(2), 1e-9);
}

TEST(PolicyComparison, APolicyOfSeveralOrdersHasTheirMeanLoss) {
  FakeEvaluator evaluator = MakeEvaluator();
  const auto result = Compare(LineupOf(Named("random", {{"a0", "f0"}, {"a1", "f1"}})), {kLoose, kTight}, &evaluator);
  ASSERT_TRUE(result.ok()) << result.status().message();
  const PolicyResult& loose = result->cells[0].policies[0];
  ExpectNear(loose.loss, 0.3, 0.25, 0.35);
  ExpectNear(*loose.ratio, 1.5, 0.35 / 0.3, 2.5);
  EXPECT_NEAR(loose.perplexity, std::exp(2.3), 1e-9);
  ExpectNear(*result->cells[1].policies[0].ratio, 0.525 / 0.25, 2.1, 2.1);
  EXPECT_FALSE(result->policies[0].to_table);
}

TEST(PolicyComparison, BestKnownIncludesCandidatesOfTheCalibrationArchive) {
  FakeEvaluator evaluator = MakeEvaluator();
  Archive calibration(evaluator.set());
  const std::vector<WindowLoss> promising(2, {0.01, 20});
  calibration.Add(Dropping("a0,a1"), 0, promising);  // 11000 bytes: fits the loose cell only
  calibration.Add(Dropping("f0"), 0, std::vector<WindowLoss>(2, {0.02, 20}));
  calibration.Add(Dropping("a0"), 0, std::vector<WindowLoss>(1, {0.001, 20}));  // half measured: says nothing
  const auto result = Compare(LineupOf(Named("bad", {{"a1", "f1"}})), {kLoose, kTight}, &evaluator, &calibration);
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(std::set(evaluator.measured.begin(), evaluator.measured.end()),
            (std::set<std::string>{"a1=0", "f1=0", "a0=0 a1=0", "f0=0"}));
  EXPECT_EQ(result->plans_measured, 4);
  EXPECT_EQ(result->cells[0].best->plan, Dropping("f0"));  // on this text 0.25, against 0.6 and 0.4
  EXPECT_EQ(result->cells[1].best->plan, Dropping("f0"));
  ExpectNear(*result->cells[0].policies[0].ratio, 1.6, 1.6, 1.6);
}

TEST(PolicyComparison, CellsWhereTheDensePlanFitsAreLeftOutOfRatios) {
  FakeEvaluator evaluator = MakeEvaluator();
  const auto result = Compare(LineupOf(Named("table", {{"", "a1"}})), {Budget::Percent(100), kLoose}, &evaluator);
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(result->cells_where_dense_fits, 1);
  EXPECT_TRUE(result->cells[0].best->plan.dense());
  EXPECT_FALSE(result->cells[0].policies[0].ratio);
  ExpectNear(result->cells[0].policies[0].loss, 0, 0, 0);
  EXPECT_NEAR(result->cells[0].policies[0].perplexity, result->dense_perplexity, 1e-9);
  EXPECT_EQ(result->policies[0].all.cells, 1);
  EXPECT_EQ(result->policies[0].by_budget[0].cells, 0);

  FakeEvaluator idle = MakeEvaluator();
  const auto nothing = Compare(LineupOf(Named("table", {{""}})), {Budget::Percent(100)}, &idle);
  ASSERT_TRUE(nothing.ok());
  EXPECT_FALSE(nothing->winner);
  EXPECT_TRUE(idle.measured.empty());
}

TEST(PolicyComparison, RefusalsAreResults) {
  FakeEvaluator evaluator = MakeEvaluator();
  const auto result = Compare(LineupOf(Named("shy", {{"a0"}}), Named("brave", {{"a1", "f1"}})),
                              {kLoose, kTight, Budget::Bytes(100)}, &evaluator);
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_TRUE(result->cells[1].policies[0].refused());
  EXPECT_EQ(result->cells[1].policies[0].choice.refusal, "nothing scripted fits");
  EXPECT_FALSE(result->cells[1].policies[0].ratio);
  EXPECT_EQ(result->policies[0].refusals, 2);
  EXPECT_EQ(result->policies[1].refusals, 1);
  EXPECT_FALSE(result->cells[2].best);
  // The one with the better mean refuses more often.
  EXPECT_LT(result->policies[0].all.ratio.value, result->policies[1].all.ratio.value);
  EXPECT_EQ(result->winner, 1u);
}

TEST(PolicyComparison, FrontHoldsPlansThatNoOtherBeatsInBoth) {
  FakeEvaluator evaluator = MakeEvaluator();
  const auto result =
      Compare(LineupOf(Named("all", {{"a1"}, {"a0"}, {"f1"}, {"f0"}, {"a0,f1"}})), {kLoose, kTight}, &evaluator);
  ASSERT_TRUE(result.ok()) << result.status().message();
  std::vector<std::string> front;
  for (const PlanPoint& point : result->fronts[0]) {
    front.push_back(point.plan.ToText());
  }
  // Refused in the tight cell (a0 alone does not fit), and yet all five were measured.
  EXPECT_EQ(front, (std::vector<std::string>{"a0=0 f1=0", "f0=0", "a0=0", "dense"}));
}

TEST(PolicyComparison, TimesEveryCall) {
  FakeEvaluator evaluator = MakeEvaluator();
  const auto result = Compare(LineupOf(Named("random", {{"a0"}, {"a1"}})), {kLoose}, &evaluator);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->cells[0].policies[0].choice.decision_ms.size(), 4u);
  EXPECT_LE(result->policies[0].decision_median_ms, result->policies[0].decision_p99_ms);
}

TEST(PolicyComparison, WhatCannotBeMeasuredIsAnError) {
  FakeEvaluator evaluator = MakeEvaluator();
  evaluator.fail_at = "a1=0";
  const auto result = Compare(LineupOf(Named("bad", {{"a1"}})), {kLoose}, &evaluator);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), ErrorCode::kCorrupt);
}

TEST(MeasuredPlans, EachPlanOnceWithItsNeighbourAsBase) {
  FakeEvaluator evaluator = MakeEvaluator();
  ASSERT_TRUE(evaluator.Measure(Dropping("f0")).ok());
  evaluator.measured.clear();
  std::vector<int64_t> done;
  const auto measured = MeasurePlans(
      {Dropping("a0,f1"), Dropping("f1"), Dropping("a0"), Dropping("f0"), Dropping("f1"), Dropping("a0,f0")},
      &evaluator, [&](int64_t n, int64_t total) {
        done.push_back(n);
        EXPECT_EQ(total, 4);
      });
  ASSERT_TRUE(measured.ok());
  EXPECT_EQ(*measured, 4);
  EXPECT_EQ(evaluator.measured, (std::vector<std::string>{"f1=0", "a0=0", "a0=0 f1=0", "a0=0 f0=0"}));
  EXPECT_EQ(evaluator.bases, evaluator.measured);
  EXPECT_EQ(done, (std::vector<int64_t>{1, 2, 3, 4}));
}

}  // namespace
}  // namespace espalier
