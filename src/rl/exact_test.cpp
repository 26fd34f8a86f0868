#include "rl/exact.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "rl/environment.h"
#include "rl/task_for_test.h"

namespace espalier {
namespace {

using test::RoundMemory;
using test::TaskOf;

// The best return over all orders of dropping, one by one.
double BruteForce(const Observation& task, const std::vector<double>& values, double gamma, Plan plan) {
  if (Fits(task, FootprintOf(task, plan))) {
    return 0;
  }
  double best = -std::numeric_limits<double>::infinity();
  for (int b = 0; b < plan.n_block(); ++b) {
    if (!plan.kept({b})) {
      continue;
    }
    Plan next = plan;
    next.Drop({b});
    double reward = 0;
    for (int i = 0; i < plan.n_block(); ++i) {
      reward += next.kept({i}) ? values[static_cast<size_t>(i)] : 0;
    }
    best = std::max(best, reward + gamma * BruteForce(task, values, gamma, next));
  }
  return best;
}

TEST(BestAdditiveEpisode, IsTheBestOfAllOrders) {
  MemoryModel memory = RoundMemory(3);
  std::mt19937 random(7);
  for (int round = 0; round < 40; ++round) {
    if (round >= 20) {  // layers of different bytes
      memory.block_bytes = {100, 300, 100, 280, 120, 300};
    }
    std::vector<double> values;
    for (int b = 0; b < 6; ++b) {
      values.push_back(static_cast<double>(random() % 200) / 100 - 0.5);
    }
    const Observation task = TaskOf(memory, 10 + random() % 30, 1000 + random() % 1600);
    const auto best = BestAdditiveEpisode(task, values, 0.9);
    const double expected = BruteForce(task, values, 0.9, Plan::Dense(3));
    ASSERT_TRUE(best.ok()) << best.status().message();
    EXPECT_NEAR(best->value, expected, 1e-12) << round;
  }
}

TEST(BestAdditiveEpisode, PlaysOutAsItSays) {
  const MemoryModel memory = RoundMemory(4);
  const std::vector<double> importance = {0.1, 0.9, 0.3, 0.2, 0.5, 0.4, 0.8, 0.6};
  const Observation task = TaskOf(memory, 25, 2200);
  const auto best = BestAdditiveEpisode(task, BlockValues(task, importance), 0.99);
  ASSERT_TRUE(best.ok());
  PaperReward reward(importance);
  PruningEnvironment environment({}, importance, &reward);
  EnvironmentStep step = environment.Reset(task);
  double value = 0;
  double weight = 1;
  for (const BlockId block : best->dropped) {
    ASSERT_FALSE(step.terminated);
    step = *environment.Step(block.index);
    value += weight * step.reward;
    weight *= 0.99;
  }
  EXPECT_TRUE(step.terminated);
  EXPECT_TRUE(environment.fits());
  EXPECT_NEAR(value, best->value, 1e-12);
}

TEST(BestAdditiveEpisode, SaysWhenNothingFits) {
  const MemoryModel memory = RoundMemory(2);
  const Observation task = TaskOf(memory, 10, 900);
  const auto best = BestAdditiveEpisode(task, std::vector<double>(4, 1.0), 0.99);
  ASSERT_FALSE(best.ok());
  EXPECT_EQ(best.status().code(), ErrorCode::kOutOfBudget);
  EXPECT_NE(best.status().message().find("900"), std::string::npos);
}

}  // namespace
}  // namespace espalier
