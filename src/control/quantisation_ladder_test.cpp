#include "control/quantisation_ladder.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <utility>

#include "control/fake_comparison_for_test.h"

namespace espalier {
namespace {

// A large, a middle (half the weights) and a small rung (a quarter): 13400, 6900 and 3650 bytes dense at 1x100.
// Dropping a0, f0 and f1 brings each below the next one's bytes (6200 and 3200) and loses 1.25 nats beside what the
// rung itself loses.
class LadderTest : public testing::Test {
 protected:
  LadderModel Rung(const std::string& name, uint64_t divisor, double always, bool rung = true) {
    LadderModel model = {name, name + ".gguf", rung, {}, {}};
    model.memory = [divisor](const Workload&) -> Result<MemoryModel> { return FakeMemory(divisor); };
    model.evaluator = Losing(name, always);
    return model;
  }

  // The same model with `bytes` for a key or a value: at 1x100 its two attention blocks hold 400 bytes for each.
  LadderModel KvRung(const std::string& name, uint64_t bytes, double always) {
    LadderModel model = {name, "model.gguf", true, {}, {}};
    model.memory = [bytes](const Workload&) -> Result<MemoryModel> {
      MemoryModel memory = FakeMemory();
      memory.kv.key_bytes_per_cell = memory.kv.value_bytes_per_cell = bytes;
      return memory;
    };
    model.evaluator = Losing(name, always);
    return model;
  }

  std::function<Result<std::unique_ptr<PlanEvaluator>>()> Losing(const std::string& name, double always) {
    return [this, name, always]() -> Result<std::unique_ptr<PlanEvaluator>> {
      ++evaluators_made_[name];
      const std::vector<double> losses = {0.2, 0.25, 0.4, 0.8};
      return std::unique_ptr<PlanEvaluator>(
          std::make_unique<FunctionEvaluator>(kFakeLayers, 2, Additive({losses, losses}, always)));
    };
  }

  Result<Ladder> Climb(LadderOptions options, const std::vector<std::string>& drops = {"a0,f0,f1"}) {
    std::vector<Plan> plans;
    for (const std::string& blocks : drops) {
      plans.push_back(Dropping(blocks));
    }
    const std::vector<ScenarioMemory> scenarios = {FakeScenario({Budget::Percent(50)}, 5),
                                                   FakeScenario({Budget::Percent(50)})};
    if (options.cells.empty()) {
      options.cells = MakeCells(scenarios);
    }
    return ClimbLadder(ScriptedPolicy(std::move(plans)), scenarios, {1}, options);
  }

  std::map<std::string, int> evaluators_made_;
};

TEST_F(LadderTest, PruningBeginsToWinWhereTheNextRungLosesMore) {
  LadderOptions options;
  options.models = {Rung("F16", 1, 0), Rung("Q8_0", 2, 0.05), Rung("Q2_K", 4, 2.0)};
  const auto ladder = Climb(options);
  ASSERT_TRUE(ladder.ok()) << ladder.status().message();
  EXPECT_TRUE(ladder->subject_is_source);
  ASSERT_EQ(ladder->rungs.size(), 3u);
  EXPECT_EQ(ladder->rungs[1].dense_peak_bytes, (std::vector<uint64_t>{6900}));
  EXPECT_NEAR(ladder->rungs[1].loss.value, 0.05, 1e-12);
  ASSERT_EQ(ladder->steps.size(), 2u);
  const LadderStep& first = ladder->steps[0];
  EXPECT_EQ(first.plan, Dropping("a0,f0,f1"));
  EXPECT_EQ(first.pruned_peak_bytes, 6200u);
  EXPECT_NEAR(first.pruned_loss.value, 1.25, 1e-12);
  EXPECT_NEAR(first.ratio.value, 25, 1e-9);
  EXPECT_FALSE(first.pruning_wins());
  EXPECT_NEAR(ladder->steps[1].pruned_loss.value, 1.3, 1e-12);
  EXPECT_NEAR(ladder->steps[1].ratio.value, 0.65, 1e-9);
  EXPECT_TRUE(ladder->steps[1].pruning_wins());
  ASSERT_EQ(ladder->statements.size(), 1u);
  EXPECT_EQ(ladder->statements[0].step, 1u);
  EXPECT_NEAR(ladder->statements[0].share_of_source, 3650.0 / 13400, 1e-12);
  EXPECT_EQ(
      ladder->statements[0].text,
      "1x100: pruning begins to win at 27 % of the F16 dense bytes: Q8_0 pruned to the bytes of Q2_K loses 1.3000 "
      "nats per token, Q2_K dense 2.0000");
}

TEST_F(LadderTest, SaysSoWherePruningNeverWins) {
  LadderOptions options;
  options.models = {Rung("F16", 1, 0), Rung("Q8_0", 2, 0.05), Rung("Q2_K", 4, 0.9)};
  const auto ladder = Climb(options);
  ASSERT_TRUE(ladder.ok()) << ladder.status().message();
  EXPECT_FALSE(ladder->statements[0].step);
  EXPECT_EQ(
      ladder->statements[0].text,
      "1x100: pruning never wins above the smallest rung, Q2_K (27 % of the F16 dense bytes); below it nothing else "
      "is left");
}

TEST_F(LadderTest, AModelThatIsNoRungIsMeasuredForItsPointsAlone) {
  LadderOptions options;
  options.models = {Rung("F16", 1, 0), Rung("Q2_K", 4, 2.0), Rung("Q5_0", 2, 0.1, /*rung=*/false)};
  options.subject = 2;
  const auto ladder = Climb(options);
  ASSERT_TRUE(ladder.ok()) << ladder.status().message();
  EXPECT_FALSE(ladder->subject_is_source);
  EXPECT_EQ(ladder->rungs.size(), 2u);
  // One cell of the two is at the workload asked for; 6700 bytes hold the plan's 3200.
  ASSERT_EQ(ladder->points.size(), 1u);
  EXPECT_EQ(ladder->points[0].budget, "50%");
  EXPECT_EQ(ladder->points[0].peak_bytes, 3200u);
  EXPECT_NEAR(ladder->points[0].loss.value, 1.35, 1e-12);
  EXPECT_EQ(evaluators_made_, (std::map<std::string, int>{{"F16", 1}, {"Q2_K", 1}, {"Q5_0", 1}}));
  // Two dense ones, one step (13400 does not go down to 3650: no plan), one point.
  EXPECT_FALSE(ladder->steps[0].plan);
  EXPECT_FALSE(ladder->steps[0].pruning_wins());
  EXPECT_EQ(ladder->plans_measured, 3);
}

TEST_F(LadderTest, KvRungsDifferInKvAloneAndADroppedAttentionBlockHoldsNone) {
  LadderOptions options;
  options.kind = LadderKind::kKv;
  options.models = {KvRung("f16", 16, 0), KvRung("q8_0", 8, 0.1), KvRung("q4_0", 4, 0.9)};
  options.notes = {"a word"};
  const auto ladder = Climb(options, {"a0", "a1", "a0,f1"});
  ASSERT_TRUE(ladder.ok()) << ladder.status().message();
  EXPECT_EQ(ladder->kind, LadderKind::kKv);
  EXPECT_EQ(ladder->notes, std::vector<std::string>{"a word"});
  ASSERT_EQ(ladder->rungs.size(), 3u);
  EXPECT_EQ(ladder->rungs[0].dense_peak_bytes, (std::vector<uint64_t>{19400}));
  EXPECT_EQ(ladder->rungs[1].dense_peak_bytes, (std::vector<uint64_t>{16200}));
  EXPECT_EQ(ladder->rungs[2].dense_peak_bytes, (std::vector<uint64_t>{14600}));
  EXPECT_EQ(ladder->rungs[0].dense_kv_bytes, (std::vector<uint64_t>{6400}));
  EXPECT_EQ(ladder->rungs[2].dense_kv_bytes, (std::vector<uint64_t>{1600}));
  EXPECT_EQ(ladder->rungs[0].loss.value, 0);
  ASSERT_EQ(ladder->steps.size(), 2u);
  // 1000 bytes of weights and 3200 of KV go with a0.
  EXPECT_EQ(ladder->steps[0].plan, Dropping("a0"));
  EXPECT_EQ(ladder->steps[0].pruned_peak_bytes, 15200u);
  EXPECT_NEAR(ladder->steps[0].ratio.value, 2, 1e-9);
  EXPECT_EQ(ladder->steps[1].plan, Dropping("a0"));
  EXPECT_EQ(ladder->steps[1].pruned_peak_bytes, 13600u);
  EXPECT_TRUE(ladder->steps[1].pruning_wins());
  EXPECT_EQ(
      ladder->statements[0].text,
      "1x100: pruning begins to win at 75 % of the dense bytes with KV f16: KV q8_0 pruned to the bytes of KV q4_0 "
      "loses 0.3000 nats per token, KV q4_0 dense 0.9000");
  options.models.back() = KvRung("q4_0", 4, 0.2);
  const auto never = Climb(options, {"a0"});
  ASSERT_TRUE(never.ok()) << never.status().message();
  EXPECT_EQ(
      never->statements[0].text,
      "1x100: pruning never wins above the smallest rung, KV q4_0 (75 % of the dense bytes with KV f16); below it "
      "there is no KV type");
}

TEST_F(LadderTest, ARungThatSavesNothingIsNoVictoryOfPruning) {
  LadderOptions options;
  options.kind = LadderKind::kKv;
  options.models = {KvRung("f16", 16, 0), KvRung("q8_0", 16, 0.1), KvRung("q4_0", 4, 0.2)};
  const auto ladder = Climb(options, {"", "a0"});
  ASSERT_TRUE(ladder.ok()) << ladder.status().message();
  EXPECT_TRUE(ladder->steps[0].saves_nothing());
  EXPECT_FALSE(ladder->steps[0].pruning_wins());
  EXPECT_FALSE(ladder->steps[1].plan);  // 19400 less 4200 are more than 14600
  EXPECT_FALSE(ladder->statements[0].step);
}

TEST_F(LadderTest, OneRungHasNothingToSay) {
  LadderOptions options;
  options.kind = LadderKind::kKv;
  options.models = {KvRung("q4_0", 4, 0)};
  const auto ladder = Climb(options);
  ASSERT_TRUE(ladder.ok()) << ladder.status().message();
  EXPECT_EQ(ladder->rungs.size(), 1u);
  EXPECT_TRUE(ladder->steps.empty());
  EXPECT_TRUE(ladder->statements.empty());
}

TEST_F(LadderTest, SmallLossesKeepTheirDigits) {
  EXPECT_EQ(NatsText(0), "0.0000");
  EXPECT_EQ(NatsText(0.0000123), "0.000012");
  EXPECT_EQ(NatsText(0.00123), "0.0012");
}

TEST_F(LadderTest, AModelThatCannotBeMeasuredIsAnError) {
  LadderOptions options;
  options.models = {Rung("F16", 1, 0), Rung("Q2_K", 4, 2.0)};
  options.models[1].evaluator = []() -> Result<std::unique_ptr<PlanEvaluator>> { return IoError("gone"); };
  EXPECT_EQ(Climb(options).status().message(), "gone");
  options.models[1].memory = [](const Workload&) -> Result<MemoryModel> { return IoError("no figures"); };
  EXPECT_EQ(Climb(options).status().message(), "no figures");
}

}  // namespace
}  // namespace espalier
