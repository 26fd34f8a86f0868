// Agents learn: on a model whose losses are a known function, small enough that every plan can be looked at. What is
// held to are 95 % intervals over seeds, not single runs.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "control/policy_factory.h"
#include "control/rap_training.h"
#include "importance/fake_evaluator_for_test.h"
#include "importance/gsi.h"
#include "rl/agent.h"
#include "rl/task.h"
#include "support/toy_model.h"

namespace espalier::test {
namespace {

constexpr uint64_t kSeeds = 5;

struct Interval {
  double low = 0;
  double high = 0;
};

// 95 %, by Student's t with kSeeds - 1 degrees of freedom.
Interval OverSeeds(const std::vector<double>& values) {
  constexpr double kStudent = 2.776;
  const auto n = static_cast<double>(values.size());
  double mean = 0;
  for (const double value : values) {
    mean += value / n;
  }
  double squares = 0;
  for (const double value : values) {
    squares += (value - mean) * (value - mean);
  }
  const double half = kStudent * std::sqrt(squares / (n - 1) / n);
  return {mean - half, mean + half};
}

class RapLearning : public testing::Test {
 protected:
  RapLearning() {
    std::mt19937_64 random(23);
    for (int i = 0; i < 100; ++i) {
      tasks_.push_back(DrawTask(memory_, 0, {}, &random));
    }
  }

  // A profile as `rank` makes it: GSI, and a few plans beside those that it measured.
  Profile Ranked(FunctionEvaluator* evaluator) const {
    Profile profile;
    profile.model_fingerprint = "f";
    profile.n_layer = kToyLayers;
    profile.n_embd = 32;
    auto gsi = RankByGsi(evaluator);
    EXPECT_TRUE(gsi.ok());
    profile.Put(std::move(gsi->ranking));
    for (size_t i = 0; i < plans_.size(); i += 37) {
      EXPECT_TRUE(evaluator->Measure(plans_[i].first).ok());
    }
    return profile;
  }

  // ln of the loss of what the policy decides over the least of any plan that fits, in the mean over tasks.
  double LogGap(const Policy& policy) const {
    double sum = 0;
    for (const Task& task : tasks_) {
      const auto decision = policy.Decide(task.observation);
      EXPECT_TRUE(decision.ok());
      const auto best = std::find_if(plans_.begin(), plans_.end(), [&](const auto& plan) {
        return Fits(task.observation, FootprintOf(task.observation, plan.first));
      });
      sum += std::log(ToyKl(decision->plan, 0) / FunctionEvaluator::kTokensPerWindow / best->second);
    }
    return sum / static_cast<double>(tasks_.size());
  }

  RapTrainingOptions Options(const std::string& reward, uint64_t seed, int64_t episodes) const {
    RapTrainingOptions options;
    options.reward = reward;
    options.training = DefaultTraining(StateKind::kPaper, reward == "measured");
    options.training.episodes = episodes;
    options.training.dqn.seed = seed;
    options.rounds = 3;
    return options;
  }

  const MemoryModel memory_ = ToyMemory();
  const std::vector<std::pair<Plan, double>> plans_ = AllToyPlans();
  std::vector<Task> tasks_;
};

TEST_F(RapLearning, MeasuredAgentsComeCloseToTheBestOfAllPlansAndBeatGsi) {
  std::vector<double> over_optimum;
  std::vector<double> over_gsi;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    FunctionEvaluator evaluator(kToyLayers, 1, ToyKl);
    Profile profile = Ranked(&evaluator);
    const auto report = TrainRap(memory_, Options("measured", seed, 2000), &profile, &evaluator);
    ASSERT_TRUE(report.ok()) << report.status().message();
    EXPECT_EQ(report->gaps.size(), 3u);
    EXPECT_GT(report->plans_measured, 0);
    EXPECT_LT(evaluator.archive().rows().size(), plans_.size() / 3) << "it is not to look at every plan";
    const auto agent = MakeRapPolicy("rap-measured", profile, seed);
    ASSERT_TRUE(agent.ok()) << agent.status().message();
    const auto gsi = MakePolicy("gsi", profile);
    ASSERT_TRUE(gsi.ok()) << gsi.status().message();
    over_optimum.push_back(LogGap(**agent));
    over_gsi.push_back(over_optimum.back() - LogGap(**gsi));
    RecordProperty("seed_" + std::to_string(seed), std::to_string(std::exp(over_optimum.back())));
  }
  EXPECT_LT(OverSeeds(over_optimum).high, std::log(1.05));
  EXPECT_LT(OverSeeds(over_gsi).high, 0);
}

TEST_F(RapLearning, PaperAgentsComeCloseToTheOptimumOfTheirObjective) {
  std::vector<double> gaps;
  std::vector<double> learned;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    FunctionEvaluator evaluator(kToyLayers, 1, ToyKl);
    Profile profile = Ranked(&evaluator);
    const auto report = TrainRap(memory_, Options("paper", seed, 8000), &profile, nullptr);
    ASSERT_TRUE(report.ok()) << report.status().message();
    gaps.push_back(report->gaps.back().mean);
    learned.push_back(report->curve.back().mean_return - report->curve.front().mean_return);
    EXPECT_GE(report->gaps.back().mean, -1e-9) << "nobody is better than the optimum";
  }
  EXPECT_LT(OverSeeds(gaps).high, 0.02);
  EXPECT_GT(OverSeeds(learned).low, 0) << "returns rise from the first episodes to the last";
}

}  // namespace
}  // namespace espalier::test
