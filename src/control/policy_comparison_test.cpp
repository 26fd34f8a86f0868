#include "control/policy_comparison.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <utility>

#include "control/fake_comparison_for_test.h"
#include "control/measured_plans.h"

namespace espalier {
namespace {

Contestant Named(const std::string& name, const std::vector<std::vector<std::string>>& instances) {
  Contestant contestant = {name, {}};
  for (const auto& drops : instances) {
    std::vector<Plan> plans;
    for (const std::string& blocks : drops) {
      plans.push_back(blocks.empty() ? Plan::Dense(kFakeLayers) : Dropping(blocks));
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

// Room for all but one attention block, and for all but one FFN block.
const Budget kLoose = Budget::Bytes(12200);
const Budget kTight = Budget::Bytes(10400);

// Dropping a0 costs 0.2 nats, f0 0.25, a1 0.4, f1 0.8; windows disagree about a0 alone.
FunctionEvaluator::Kl TwoWindows() { return Additive({{0.1, 0.25, 0.4, 0.8}, {0.3, 0.25, 0.4, 0.8}}); }

// Plans, in the order in which they were measured.
std::vector<std::string> MeasuredBy(const FunctionEvaluator& evaluator) {
  std::vector<std::string> plans;
  for (const ArchiveRow& row : evaluator.archive().rows()) {
    plans.push_back(row.plan.ToText());
  }
  return plans;
}

ComparisonOptions Quick() {
  ComparisonOptions options;
  options.timing_calls = 2;
  return options;
}

Result<PolicyComparison> Compare(Lineup lineup, std::vector<Budget> budgets, FunctionEvaluator* evaluator,
                                 const Archive* calibration = nullptr) {
  std::vector<ScenarioMemory> scenarios;
  scenarios.push_back(FakeScenario(std::move(budgets)));
  return ComparePolicies(std::move(lineup), calibration, std::move(scenarios), evaluator, Quick());
}

void ExpectNear(const Interval& interval, double value, double low, double high) {
  EXPECT_NEAR(interval.value, value, 1e-9);
  EXPECT_NEAR(interval.low, low, 1e-9);
  EXPECT_NEAR(interval.high, high, 1e-9);
}

TEST(PolicyComparison, RatiosAndTheirGeometricMeansAreThoseComputedByHand) {
  FunctionEvaluator evaluator(kFakeLayers, 2, TwoWindows());
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
  EXPECT_NEAR(loose.policies[0].perplexity, std::exp(3), 1e-9);
  ExpectNear(*result->cells[1].policies[0].ratio, 3.2, 3.2, 3.2);

  EXPECT_EQ(result->policies[0].all.cells, 2);
  ExpectNear(result->policies[0].all.ratio, std::sqrt(2 * 3.2), std::sqrt(4.0 / 3 * 3.2), std::sqrt(4 * 3.2));
  ASSERT_EQ(result->policies[0].by_budget.size(), 2u);
  ExpectNear(result->policies[0].by_budget[1].ratio, 3.2, 3.2, 3.2);
  ExpectNear(*result->policies[0].to_table, std::sqrt(2 * 3.2), std::sqrt(4.0 / 3 * 3.2), std::sqrt(4 * 3.2));
  ExpectNear(*result->policies[1].to_table, 1, 1, 1);
  EXPECT_EQ(result->winner, 1u);
  EXPECT_NEAR(result->dense_perplexity, std::exp(3), 1e-9);
}

TEST(PolicyComparison, APolicyOfSeveralOrdersHasTheirMeanLoss) {
  FunctionEvaluator evaluator(kFakeLayers, 2, TwoWindows());
  const auto result = Compare(LineupOf(Named("random", {{"a0", "f0"}, {"a1", "f1"}})), {kLoose, kTight}, &evaluator);
  ASSERT_TRUE(result.ok()) << result.status().message();
  const PolicyResult& loose = result->cells[0].policies[0];
  ExpectNear(loose.loss, 0.3, 0.25, 0.35);
  ExpectNear(*loose.ratio, 1.5, 0.35 / 0.3, 2.5);
  EXPECT_NEAR(loose.perplexity, std::exp(3), 1e-9);
  ExpectNear(*result->cells[1].policies[0].ratio, 0.525 / 0.25, 2.1, 2.1);
  EXPECT_FALSE(result->policies[0].to_table);
}

TEST(PolicyComparison, SeedsAreJudgedOneByOneToo) {
  FunctionEvaluator evaluator(kFakeLayers, 2, TwoWindows());
  Contestant random = Named("random", {{"a0", "f0"}, {"a1", "f1"}});
  random.seeds = {3, 8};
  const auto result =
      Compare(LineupOf(std::move(random), Named("table", {{"a0", "f0"}})), {kLoose, kTight}, &evaluator);
  ASSERT_TRUE(result.ok()) << result.status().message();
  const std::vector<SeedSummary>& seeds = result->policies[0].seeds;
  ASSERT_EQ(seeds.size(), 2u);
  EXPECT_EQ(seeds[0].seed, 3u);
  EXPECT_EQ(seeds[1].seed, 8u);
  EXPECT_EQ(seeds[1].all.cells, 2);
  ExpectNear(seeds[0].all.ratio, 1, 1, 1);
  // 0.4 over 0.2, and 0.8 over 0.25.
  ExpectNear(seeds[1].all.ratio, std::sqrt(2 * 3.2), std::sqrt(4.0 / 3 * 3.2), std::sqrt(4 * 3.2));
  EXPECT_TRUE(result->policies[1].seeds.empty());
}

TEST(PolicyComparison, BestKnownIncludesCandidatesOfTheCalibrationArchive) {
  FunctionEvaluator evaluator(kFakeLayers, 2, TwoWindows());
  Archive calibration(evaluator.set());
  const std::vector<WindowLoss> promising(2, {0.01, 20});
  calibration.Add(Dropping("a0,a1"), 0, promising);  // 11000 bytes: fits the loose cell only
  calibration.Add(Dropping("f0"), 0, std::vector<WindowLoss>(2, {0.02, 20}));
  calibration.Add(Dropping("a0"), 0, std::vector<WindowLoss>(1, {0.001, 20}));  // half measured: says nothing
  const auto result = Compare(LineupOf(Named("bad", {{"a1", "f1"}})), {kLoose, kTight}, &evaluator, &calibration);
  ASSERT_TRUE(result.ok()) << result.status().message();
  const std::vector<std::string> measured = MeasuredBy(evaluator);
  EXPECT_EQ(std::set(measured.begin(), measured.end()), (std::set<std::string>{"a1=0", "f1=0", "a0=0 a1=0", "f0=0"}));
  EXPECT_EQ(result->plans_measured, 4);
  EXPECT_EQ(result->cells[0].best->plan, Dropping("f0"));  // on this text 0.25, against 0.6 and 0.4
  EXPECT_EQ(result->cells[1].best->plan, Dropping("f0"));
  ExpectNear(*result->cells[0].policies[0].ratio, 1.6, 1.6, 1.6);
}

TEST(PolicyComparison, CellsWhereTheDensePlanFitsAreLeftOutOfRatios) {
  FunctionEvaluator evaluator(kFakeLayers, 2, TwoWindows());
  const auto result = Compare(LineupOf(Named("table", {{"", "a1"}})), {Budget::Percent(100), kLoose}, &evaluator);
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(result->cells_where_dense_fits, 1);
  EXPECT_TRUE(result->cells[0].best->plan.dense());
  EXPECT_FALSE(result->cells[0].policies[0].ratio);
  ExpectNear(result->cells[0].policies[0].loss, 0, 0, 0);
  EXPECT_NEAR(result->cells[0].policies[0].perplexity, result->dense_perplexity, 1e-9);
  EXPECT_EQ(result->policies[0].all.cells, 1);
  EXPECT_EQ(result->policies[0].by_budget[0].cells, 0);

  FunctionEvaluator idle(kFakeLayers, 2, TwoWindows());
  const auto nothing = Compare(LineupOf(Named("table", {{""}})), {Budget::Percent(100)}, &idle);
  ASSERT_TRUE(nothing.ok());
  EXPECT_FALSE(nothing->winner);
  EXPECT_TRUE(MeasuredBy(idle).empty());
}

TEST(PolicyComparison, RefusalsAreResults) {
  FunctionEvaluator evaluator(kFakeLayers, 2, TwoWindows());
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
  FunctionEvaluator evaluator(kFakeLayers, 2, TwoWindows());
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
  FunctionEvaluator evaluator(kFakeLayers, 2, TwoWindows());
  const auto result = Compare(LineupOf(Named("random", {{"a0"}, {"a1"}})), {kLoose}, &evaluator);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->cells[0].policies[0].choice.decision_ms.size(), 4u);
  EXPECT_LE(result->policies[0].decision_median_ms, result->policies[0].decision_p99_ms);
}

TEST(MeasuredPlans, EachPlanOnceBesideThoseThatBeginLikeIt) {
  FunctionEvaluator evaluator(kFakeLayers, 2, TwoWindows());
  ASSERT_TRUE(evaluator.Measure(Dropping("f0")).ok());
  std::vector<int64_t> done;
  const auto measured = MeasurePlans(
      {Dropping("a0,f1"), Dropping("f1"), Dropping("a0"), Dropping("f0"), Dropping("f1"), Dropping("a0,f0")},
      &evaluator, [&](int64_t n, int64_t total) {
        done.push_back(n);
        EXPECT_EQ(total, 8);  // windows
      });
  ASSERT_TRUE(measured.ok());
  EXPECT_EQ(*measured, 4);
  EXPECT_EQ(MeasuredBy(evaluator), (std::vector<std::string>{"f0=0", "f1=0", "a0=0", "a0=0 f1=0", "a0=0 f0=0"}));
  EXPECT_EQ(done, (std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7, 8}));
}

}  // namespace
}  // namespace espalier
