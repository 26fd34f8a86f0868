#include "rl/state.h"

#include <gtest/gtest.h>

#include <cmath>

#include "rl/reward.h"
#include "rl/task_for_test.h"

namespace espalier {
namespace {

using test::RoundMemory;
using test::TaskOf;

// 3 layers at 10 cells: attention 100 + 100 bytes, FFN 300, the rest 1000: 2500 in all.
TEST(StateEncoder, PaperStateIsThatWorkedOutByHand) {
  const MemoryModel memory = RoundMemory(3);
  const Observation task = TaskOf(memory, 10, 1900);
  const std::vector<double> importance = {1, 1, 1, 1, 1, 7};  // mean 2
  const BlockMarks marks(importance);
  const StateEncoder encoder(StateKind::kPaper, marks, task);
  Plan plan = Plan::Dense(3);
  plan.Drop({1});
  State state;
  encoder.Encode(plan, FootprintOf(task, plan), &state);  // 2200: 300 too many
  ASSERT_EQ(state.size(), 2 * 3 + 4);
  EXPECT_FLOAT_EQ(state[0], 0);                                           // one sequence
  EXPECT_FLOAT_EQ(state[1], static_cast<float>(std::log2(10.0) / 16));    // of ten tokens
  EXPECT_FLOAT_EQ(state[2], static_cast<float>(1 + std::log(0.5) / 10));  // a0
  EXPECT_FLOAT_EQ(state[3], 0);                                           // f0 is dropped
  EXPECT_FLOAT_EQ(state[7], static_cast<float>(1 + std::log(3.5) / 10));  // f2
  EXPECT_FLOAT_EQ(state[8], 1.5);                                         // attention blocks' worth is missing
  EXPECT_FLOAT_EQ(state[9], 1);                                           // FFN blocks' worth
}

TEST(StateEncoder, SharedStateHasOneRowPerBlock) {
  const MemoryModel memory = RoundMemory(3);
  const Observation task = TaskOf(memory, 10, 1900);
  const std::vector<double> importance = {6, 5, 4, 3, 2, 1};
  const BlockMarks marks(importance);
  const StateEncoder encoder(StateKind::kShared, marks, task);
  Plan plan = Plan::Dense(3);
  plan.Drop({1});
  State state;
  encoder.Encode(plan, FootprintOf(task, plan), &state);
  ASSERT_EQ(state.size(), kGlobalFeatures + 6 * kBlockFeatures);
  const auto row = [&](int b) { return state.segment(kGlobalFeatures + b * kBlockFeatures, kBlockFeatures); };
  EXPECT_FLOAT_EQ(row(0)[0], 1);  // attention
  EXPECT_FLOAT_EQ(row(1)[0], 0);
  EXPECT_FLOAT_EQ(row(1)[2], 0);  // dropped
  EXPECT_FLOAT_EQ(row(0)[7], 0);  // whose other half is gone
  EXPECT_FLOAT_EQ(row(2)[7], 1);
  EXPECT_FLOAT_EQ(row(0)[3], 1);  // the most important of all
  EXPECT_FLOAT_EQ(row(5)[3], 0);
  EXPECT_FLOAT_EQ(row(0)[6], 1.5F / 4);
  EXPECT_FLOAT_EQ(row(1)[6], 1.0F / 4);
}

TEST(MeasuredReward, PaysAtTheEndWhatTheLossIsWorseThanTheLeast) {
  double loss = 0.4;
  MeasuredReward reward([&](const Plan&) -> Result<double> { return loss; }, [](const Observation&) { return 0.2; });
  const MemoryModel memory = RoundMemory(1);
  reward.Begin(TaskOf(memory, 1, 1));
  const Plan plan = Plan::Dense(1);
  EXPECT_EQ(*reward.Pay(plan, false), 0);
  EXPECT_NEAR(*reward.Pay(plan, true), std::log(0.201 / 0.401), 1e-12);
  loss = 0.1;  // better than what was known
  EXPECT_NEAR(*reward.Pay(plan, true), std::log(0.201 / 0.101), 1e-12);
  loss = 50;  // no worse than e^2 times
  EXPECT_EQ(*reward.Pay(plan, true), -2);
}

TEST(PaperReward, IsTheSumOverKeptBlocksInShares) {
  const MemoryModel memory = RoundMemory(1);  // at 10 cells: attention 200 bytes, FFN 300
  const Observation task = TaskOf(memory, 10, 1);
  const std::vector<double> importance = {3, 1};
  const std::vector<double> values = BlockValues(task, importance);
  EXPECT_NEAR(values[0], 0.75 - 0.3 * 0.4, 1e-12);
  EXPECT_NEAR(values[1], 0.25 - 0.3 * 0.6, 1e-12);
  PaperReward reward(importance);
  reward.Begin(task);
  Plan plan = Plan::Dense(1);
  EXPECT_NEAR(*reward.Pay(plan, false), 0.7, 1e-12);
  plan.Drop({0});
  EXPECT_NEAR(*reward.Pay(plan, true), values[1], 1e-12);
}

}  // namespace
}  // namespace espalier
