// StratNet learns: on a model whose losses are a known function, small enough that every plan can be looked at.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "importance/density.h"
#include "rl/task.h"
#include "strategy/hypervolume.h"
#include "strategy/learn_strategies.h"
#include "strategy/strategy_plans.h"
#include "support/toy_model.h"

namespace espalier::test {
namespace {

TEST(StrategyLearning, FindsNearlyAllOfTheHypervolumeWithAFractionOfThePlans) {
  const MemoryModel memory = ToyMemory();
  const auto plans = AllToyPlans();
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    FunctionEvaluator evaluator(kToyLayers, 1, ToyKl);
    StratNet net(kToyBlocks, seed);
    StrategyLoopOptions options;
    options.evaluations = 120;
    options.training.steps = 300;
    options.training.seed = seed;
    const auto report = LearnStrategies(&evaluator, memory, options, &net);
    ASSERT_TRUE(report.ok()) << report.status().message();
    EXPECT_LE(evaluator.archive().rows().size(), 120u);
    EXPECT_GE(report->rounds.size(), 3u);

    // Of all plans, as the loop counts it.
    double optimum = 0;
    const std::vector<int64_t> workloads = SpreadOfCells(memory, 6);
    for (const int64_t cells : workloads) {
      const Objectives objectives(memory, cells, report->worst_loss);
      std::vector<ObjectivePoint> points;
      for (const auto& [plan, loss] : plans) {
        points.push_back({objectives.Size(KeepMatrix(std::span(&plan, 1)).col(0)),
                          objectives.Loss(std::log(loss + LossSurrogate::kFloor))});
      }
      optimum += Hypervolume(points, {1, 1}) / static_cast<double>(workloads.size());
    }
    EXPECT_LE(report->rounds.back().hypervolume, optimum + 1e-9);
    EXPECT_GT(report->rounds.back().hypervolume, 0.96 * optimum);
    RecordProperty("hypervolume_" + std::to_string(seed), std::to_string(report->rounds.back().hypervolume / optimum));
    EXPECT_GE(report->rounds.back().hypervolume, report->rounds.front().hypervolume);

    // Of what StratNet says to a limit, the best by the surrogate's word is near the best of all plans.
    double log_ratio = 0;
    std::mt19937_64 random(29);
    constexpr int kTasks = 60;
    const auto surrogate = LossSurrogate::Fit(evaluator.archive(), kToyLayers);
    ASSERT_TRUE(surrogate.ok());
    for (int i = 0; i < kTasks; ++i) {
      const Task task = DrawTask(memory, 0, {}, &random);
      const auto decisions = PlansThatFit(net, task.observation, 64);
      ASSERT_TRUE(decisions.ok()) << decisions.status().message();
      const auto guess = [&](const Decision& decision) { return surrogate->Predict(decision.plan).log_mean; };
      const auto chosen = std::min_element(decisions->begin(), decisions->end(),
                                           [&](const auto& a, const auto& b) { return guess(a) < guess(b); });
      EXPECT_TRUE(Fits(task.observation, chosen->footprint));
      const auto best = std::find_if(plans.begin(), plans.end(), [&](const auto& plan) {
        return Fits(task.observation, FootprintOf(task.observation, plan.first));
      });
      const double loss = ToyKl(chosen->plan, 0) / FunctionEvaluator::kTokensPerWindow;
      log_ratio += std::log((loss + LossSurrogate::kFloor) / (best->second + LossSurrogate::kFloor)) / kTasks;
    }
    RecordProperty("ratio_" + std::to_string(seed), std::to_string(std::exp(log_ratio)));
    EXPECT_LT(log_ratio, std::log(1.1));
  }
}

}  // namespace
}  // namespace espalier::test
