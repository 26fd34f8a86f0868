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

namespace espalier::test {
namespace {

constexpr int kLayers = 5;
constexpr int kBlocks = 2 * kLayers;
constexpr uint64_t kSeeds = 5;

// Each block has a price of its own and every pair of neighbours one together, some of them negative: no order of
// single blocks is right everywhere.
double KlOf(const Plan& plan, int64_t window) {
  static const std::vector<double> prices = [] {
    std::mt19937_64 random(17);
    std::vector<double> drawn;
    for (int i = 0; i < 2 * kBlocks; ++i) {
      const double uniform = static_cast<double>(random() % 1000) / 1000;
      drawn.push_back(i < kBlocks ? 0.05 + 0.5 * uniform : 0.4 * (uniform - 0.4));
    }
    return drawn;
  }();
  double loss = 0;
  for (int b = 0; b < kBlocks; ++b) {
    if (plan.kept({b})) {
      continue;
    }
    loss += prices[static_cast<size_t>(b)];
    if (b + 1 < kBlocks && !plan.kept({b + 1})) {
      loss += std::max(prices[static_cast<size_t>(kBlocks + b)], -0.8 * prices[static_cast<size_t>(b)]);
    }
  }
  return FunctionEvaluator::kTokensPerWindow * loss * (1 + 0.1 * static_cast<double>(window));
}

MemoryModel SmallMemory() {
  MemoryModel memory;
  for (int il = 0; il < kLayers; ++il) {
    memory.block_bytes.push_back(100'000);
    memory.block_bytes.push_back(260'000);
  }
  memory.block_staging_bytes.assign(memory.block_bytes.size(), 0);
  memory.global_bytes = 400'000;
  memory.kv = {
      .key_bytes_per_cell = 64, .value_bytes_per_cell = 64, .n_planes = 2, .page_bytes = 1, .capacity = 1 << 20};
  return memory;
}

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
    for (int bits = 1; bits < 1 << kBlocks; ++bits) {
      Plan plan = Plan::Dense(kLayers);
      for (int b = 0; b < kBlocks; ++b) {
        if ((bits >> b & 1) != 0) {
          plan.Drop({b});
        }
      }
      plans_.push_back({plan, KlOf(plan, 0)});
    }
    std::stable_sort(plans_.begin(), plans_.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    std::mt19937_64 random(23);
    for (int i = 0; i < 100; ++i) {
      tasks_.push_back(DrawTask(memory_, 0, {}, &random));
    }
  }

  // A profile as `rank` makes it: GSI, and a few plans beside those that it measured.
  Profile Ranked(FunctionEvaluator* evaluator) const {
    Profile profile;
    profile.model_fingerprint = "f";
    profile.n_layer = kLayers;
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
      sum += std::log(KlOf(decision->plan, 0) / best->second);
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

  const MemoryModel memory_ = SmallMemory();
  std::vector<std::pair<Plan, double>> plans_;  // all but the dense one, least loss first
  std::vector<Task> tasks_;
};

TEST_F(RapLearning, MeasuredAgentsComeCloseToTheBestOfAllPlansAndBeatGsi) {
  std::vector<double> over_optimum;
  std::vector<double> over_gsi;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    FunctionEvaluator evaluator(kLayers, 1, KlOf);
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
    FunctionEvaluator evaluator(kLayers, 1, KlOf);
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
