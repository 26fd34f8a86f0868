#include "policy/policy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "policy/data_free.h"
#include "policy/static_plan.h"

namespace espalier {
namespace {

constexpr uint64_t kProcess = 5'000'000;

// Attention of 100 kB and FFN of 250 kB like most models, with layers that differ a little in size (mixed
// quantisation), and staging as repacked weights need it.
MemoryModel TestModel(int n_layer, bool staging) {
  MemoryModel model;
  for (int il = 0; il < n_layer; ++il) {
    model.block_bytes.push_back(100'000 + static_cast<uint64_t>(il % 3) * 8192);
    model.block_bytes.push_back(250'000 + static_cast<uint64_t>(il % 2) * 4096);
  }
  for (const uint64_t bytes : model.block_bytes) {
    model.block_staging_bytes.push_back(staging ? bytes / 2 : 0);
  }
  model.global_bytes = 400'000;
  model.compute_bytes = 60'000;
  model.kv = {
      .key_bytes_per_cell = 256, .value_bytes_per_cell = 256, .n_planes = 4, .page_bytes = 4096, .capacity = 4096};
  return model;
}

Observation Observe(const MemoryModel& model, uint64_t limit) {
  return {.memory = &model, .workload = Workload::Uniform(1, 512), .limit_bytes = limit, .process_bytes = kProcess};
}

class DataFreeSweep : public testing::TestWithParam<std::tuple<int, bool>> {};

TEST_P(DataFreeSweep, EveryBudgetIsMetWithSlackSmallerThanAnyDroppedBlock) {
  const auto [n_layer, staging] = GetParam();
  const MemoryModel model = TestModel(n_layer, staging);
  const DataFreePolicy policy;
  const uint64_t dense = FootprintOf(Observe(model, 0), Plan::Dense(n_layer)).peak_bytes();
  Plan nothing = Plan::Dense(n_layer);
  for (const BlockId block : policy.DropOrder(n_layer)) {
    nothing.Drop(block);
  }
  const uint64_t least = kProcess + FootprintOf(Observe(model, 0), nothing).peak_bytes();
  for (uint64_t limit = least; limit < kProcess + dense + 20'000; limit += 10'007) {
    const Observation observation = Observe(model, limit);
    const auto decision = policy.Decide(observation);
    ASSERT_TRUE(decision.ok()) << decision.status().message();
    EXPECT_EQ(FootprintOf(observation, decision->plan).peak_bytes(), decision->footprint.peak_bytes());
    EXPECT_LE(kProcess + decision->footprint.peak_bytes(), limit);
    EXPECT_TRUE(decision->plan.whole_blocks_only());
    for (const BlockId block : decision->plan.dropped()) {
      Plan larger = decision->plan;
      larger.Restore(block);
      EXPECT_GT(kProcess + FootprintOf(observation, larger).peak_bytes(), limit)
          << BlockName(block) << " would have fitted into a limit of " << limit;
    }
    EXPECT_EQ(decision->plan.dense(), limit >= kProcess + dense);
  }
}

// DropUntilItFits in so many words: the footprint of every plan anew, and every dropped block tried.
Plan DroppedUntilItFits(const Observation& observation, std::vector<BlockId> order) {
  Plan plan = Plan::Dense(observation.n_layer());
  std::vector<BlockId> dropped;
  for (size_t i = 0; !Fits(observation, FootprintOf(observation, plan)); ++i) {
    plan.Drop(order.at(i));
    dropped.insert(dropped.begin(), order[i]);
  }
  const auto bytes_of = [&](BlockId block) {
    Plan without = Plan::Dense(observation.n_layer());
    without.Drop(block);
    return FootprintOf(observation, Plan::Dense(observation.n_layer())).managed_bytes() -
           FootprintOf(observation, without).managed_bytes();
  };
  std::stable_sort(dropped.begin(), dropped.end(), [&](BlockId a, BlockId b) { return bytes_of(a) > bytes_of(b); });
  for (const BlockId block : dropped) {
    plan.Restore(block);
    if (!Fits(observation, FootprintOf(observation, plan))) {
      plan.Drop(block);
    }
  }
  return plan;
}

TEST_P(DataFreeSweep, AnyOrderIsFollowedAndTheLargestThatFitReturn) {
  const auto [n_layer, staging] = GetParam();
  const MemoryModel model = TestModel(n_layer, staging);
  std::vector<BlockId> order = DataFreePolicy().DropOrder(n_layer);
  Plan nothing = Plan::Dense(n_layer);
  for (const BlockId block : order) {
    nothing.Drop(block);
  }
  const uint64_t dense = FootprintOf(Observe(model, 0), Plan::Dense(n_layer)).peak_bytes();
  const uint64_t least = FootprintOf(Observe(model, 0), nothing).peak_bytes();
  std::mt19937_64 random(5);
  for (int i = 0; i < 200; ++i) {
    std::shuffle(order.begin(), order.end(), random);
    const Observation observation = Observe(model, kProcess + least + random() % (dense - least + 1000));
    const auto decision = DropUntilItFits(observation, order);
    ASSERT_TRUE(decision.ok()) << decision.status().message();
    EXPECT_EQ(decision->plan, DroppedUntilItFits(observation, order));
    EXPECT_EQ(decision->footprint.peak_bytes(), FootprintOf(observation, decision->plan).peak_bytes());
  }
}

TEST_P(DataFreeSweep, TheNamedMinimumIsTheSmallestLimitThatWorks) {
  const auto [n_layer, staging] = GetParam();
  const MemoryModel model = TestModel(n_layer, staging);
  const DataFreePolicy policy;
  const auto refused = policy.Decide(Observe(model, 1));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), ErrorCode::kOutOfBudget);
  const std::string message = refused.status().message();
  const std::string mark = "minimum of ";
  const uint64_t minimum = std::stoull(message.substr(message.find(mark) + mark.size()));
  EXPECT_FALSE(policy.Decide(Observe(model, minimum - 1)).ok());
  const auto smallest = policy.Decide(Observe(model, minimum));
  ASSERT_TRUE(smallest.ok());
  EXPECT_EQ(smallest->plan.dropped().size(), static_cast<size_t>(2 * n_layer));
}

INSTANTIATE_TEST_SUITE_P(Shapes, DataFreeSweep, testing::Combine(testing::Values(1, 2, 3, 6, 16, 32), testing::Bool()));

TEST(DataFreePolicy, OrderHasEveryBlockOnce) {
  for (const int n_layer : {1, 2, 3, 4, 16, 80}) {
    const auto order = DataFreePolicy().DropOrder(n_layer);
    EXPECT_EQ(order.size(), static_cast<size_t>(2 * n_layer));
    EXPECT_EQ(std::set<BlockId>(order.begin(), order.end()).size(), order.size());
  }
}

TEST(DataFreePolicy, FirstLayersAndLastGoLast) {
  const auto order = DataFreePolicy().DropOrder(16);
  const std::set<BlockId> last_six(order.end() - 6, order.end());
  const std::set<BlockId> expected = {BlockId::Attention(0), BlockId::Ffn(0),        BlockId::Attention(1),
                                      BlockId::Ffn(1),       BlockId::Attention(15), BlockId::Ffn(15)};
  EXPECT_EQ(last_six, expected);
  EXPECT_EQ(order.back(), BlockId::Ffn(0));
}

TEST(DataFreePolicy, StartsAtThreeFifthsOfTheDepthWithAttention) {
  const auto order = DataFreePolicy().DropOrder(16);
  EXPECT_EQ(order[0], BlockId::Attention(9));
  EXPECT_EQ(order[1], BlockId::Ffn(9));
}

TEST(DataFreePolicy, LongContextsMakeAttentionWorthMore) {
  // 400 kB short: without KV in use that takes an FFN or more; with 4096 cells one attention block frees 2 MiB.
  const MemoryModel model = TestModel(16, false);
  Observation observation = Observe(model, 0);
  observation.workload = Workload::Uniform(1, 4096);
  observation.limit_bytes = kProcess + FootprintOf(observation, Plan::Dense(16)).peak_bytes() - 400'000;
  const auto decision = DataFreePolicy().Decide(observation);
  ASSERT_TRUE(decision.ok());
  EXPECT_EQ(decision->plan.ToText(), "a9=0");
}

TEST(StaticPolicy, KeepsItsPlanOrNamesTheBytesItNeeds) {
  const MemoryModel model = TestModel(3, true);
  const StaticPolicy policy(*Plan::Parse("a1=0 f2=0", 3));
  Observation observation = Observe(model, 0);
  const uint64_t needed = kProcess + FootprintOf(observation, *Plan::Parse("a1=0 f2=0", 3)).peak_bytes();
  observation.limit_bytes = needed;
  const auto decision = policy.Decide(observation);
  ASSERT_TRUE(decision.ok());
  EXPECT_EQ(decision->plan.ToText(), "a1=0 f2=0");
  observation.limit_bytes = needed - 1;
  const auto refused = policy.Decide(observation);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), ErrorCode::kOutOfBudget);
  EXPECT_NE(refused.status().message().find(std::to_string(needed)), std::string::npos);
  EXPECT_NE(refused.status().message().find("a1=0 f2=0"), std::string::npos);
}

}  // namespace
}  // namespace espalier
