#include "runtime/sub_batch.h"

#include <gtest/gtest.h>

#include <memory>
#include <numeric>

namespace espalier {
namespace {

Sequence WithMissing(std::vector<uint8_t> rows_missing) {
  Sequence sequence;
  sequence.tokens = {1};
  sequence.rows_missing = std::move(rows_missing);
  return sequence;
}

bool Always(BlockId) { return true; }

TEST(PlanRows, OneSequenceRunsEveryResidentBlockOnAllRows) {
  const Sequence sequence = WithMissing({0, 0});
  const std::vector<const Sequence*> tokens = {&sequence, &sequence, &sequence};
  const RowPlan plan = PlanRows(tokens, 4, [](BlockId block) { return block != BlockId::Ffn(0); });
  EXPECT_EQ(plan.block_rows, (std::vector<int>{kAllRows, kNoRows, kAllRows, kAllRows}));
  EXPECT_FALSE(plan.mixed());
}

TEST(PlanRows, MissingRowsKeepASequenceOutOfAttentionButNotOutOfFfn) {
  const Sequence whole = WithMissing({0, 0});
  const Sequence gap = WithMissing({0, 1});
  const std::vector<const Sequence*> tokens = {&whole, &gap, &whole};
  const RowPlan plan = PlanRows(tokens, 4, Always);
  EXPECT_EQ(plan.block_rows, (std::vector<int>{kAllRows, kAllRows, 1, kAllRows}));
  ASSERT_EQ(plan.subsets.size(), 2U);
  EXPECT_EQ(plan.subsets[1], (std::vector<int32_t>{0, 2}));
}

TEST(PlanRows, EqualSubsetsAreSharedAndEmptyOnesLeaveTheBlockOut) {
  Sequence restricted = WithMissing({0, 0});
  restricted.plan = Plan::Dense(2);
  restricted.plan->Drop(BlockId::Attention(0));
  restricted.plan->Drop(BlockId::Ffn(1));
  const Sequence whole = WithMissing({0, 0});
  const RowPlan plan = PlanRows(std::vector<const Sequence*>{&restricted, &whole}, 4, Always);
  EXPECT_EQ(plan.block_rows, (std::vector<int>{1, kAllRows, kAllRows, 1}));
  EXPECT_EQ(plan.subsets.size(), 2U);
  const RowPlan alone = PlanRows(std::vector<const Sequence*>{&restricted}, 4, Always);
  EXPECT_EQ(alone.block_rows, (std::vector<int>{kNoRows, kAllRows, kAllRows, kNoRows}));
  EXPECT_FALSE(alone.mixed());
}

class GroupRowsTest : public testing::Test {
 protected:
  void SetUp() override {
    auto device = Device::Open("", 1);
    ASSERT_TRUE(device.ok()) << device.status().message();
    device_ = std::move(*device);
    hparams_.n_layer = 1;
    hparams_.n_head_kv = 1;
    hparams_.head_dim = 64;
    kv_ = std::make_unique<KvCache>(hparams_, device_.get(), KvOptions{.capacity = 4096, .max_sequences = 8});
  }
  // `n` tokens of the sequence in `slot`, the first at `position`.
  void Add(int slot, int32_t position, int32_t n) {
    for (int32_t i = 0; i < n; ++i) {
      tokens_.push_back({1, slot, position + i, slot * kv_->stride() + position + i, false});
    }
  }
  std::vector<AttentionGroup> Groups(const HeadPacking& packing = {}) const {
    RowPlan rows;
    rows.subsets.emplace_back(tokens_.size());
    std::iota(rows.subsets[0].begin(), rows.subsets[0].end(), 0);
    return GroupRows(tokens_, rows, *kv_, packing).front();
  }
  // Of each group.
  std::vector<bool> Packed(const HeadPacking& packing) const {
    std::vector<bool> packed;
    for (const AttentionGroup& group : Groups(packing)) {
      packed.push_back(group.packed);
    }
    return packed;
  }

  std::unique_ptr<Device> device_;
  HyperParameters hparams_;
  std::unique_ptr<KvCache> kv_;
  std::vector<PlacedToken> tokens_;
};

TEST_F(GroupRowsTest, NeighbouringSlotsWithAsManyRowsAreOne) {
  Add(0, 10, 1);
  Add(1, 255, 1);
  Add(2, 300, 1);  // the longest says how far all reach
  EXPECT_EQ(Groups(), (std::vector<AttentionGroup>{{0, 1, 3, 0, 512}}));
}

TEST_F(GroupRowsTest, AGapInSlotsAnotherNumberOfRowsAndAnotherLengthBeginAnother) {
  Add(0, 10, 1);
  Add(2, 10, 1);
  Add(3, 10, 5);
  Add(4, 20, 5);
  Add(5, 2000, 5);
  EXPECT_EQ(Groups(), (std::vector<AttentionGroup>{
                          {0, 1, 1, 0, 256}, {1, 1, 1, 2, 256}, {2, 5, 2, 3, 256}, {12, 5, 1, 5, 2048}}));
}

TEST_F(GroupRowsTest, TheGroupThatGainsMostIsPacked) {
  Add(0, 10, 1);
  Add(2, 2000, 20);
  Add(3, 3000, 32);
  Add(5, 10, 48);
  EXPECT_EQ(Packed({.heads_per_key = 4, .max_rows = 512}), (std::vector<bool>{false, false, true, false}));
}

TEST_F(GroupRowsTest, NothingIsPackedThatGainsNothingOrNeedsMoreMemory) {
  const HeadPacking four = {.heads_per_key = 4, .max_rows = 512};
  Add(0, 2000, 15);
  EXPECT_EQ(Packed(four), (std::vector<bool>{false})) << "no tile is full";
  tokens_.clear();
  Add(0, 2000, 64);
  EXPECT_EQ(Packed(four), (std::vector<bool>{false})) << "full as it is";
  tokens_.clear();
  Add(0, 700, 16);
  EXPECT_EQ(Packed(four), (std::vector<bool>{false})) << "a short reach";
  tokens_.clear();
  Add(0, 2000, 16);
  EXPECT_EQ(Packed({}), (std::vector<bool>{false})) << "no heads share keys";
  EXPECT_EQ(Packed({.heads_per_key = 4, .max_rows = 63}), (std::vector<bool>{false})) << "no room for the mask";
  EXPECT_EQ(Packed({.heads_per_key = 4, .max_rows = 64}), (std::vector<bool>{true}));
  Add(1, 2000, 16);
  EXPECT_EQ(Packed(four), (std::vector<bool>{false})) << "two streams in one node";
}

TEST_F(GroupRowsTest, SubsetsAreNotPacked) {
  Add(0, 2000, 16);
  RowPlan rows;
  rows.subsets = {std::vector<int32_t>(16), {0, 1}};
  std::iota(rows.subsets[0].begin(), rows.subsets[0].end(), 0);
  for (const auto& groups : GroupRows(tokens_, rows, *kv_, {.heads_per_key = 4, .max_rows = 512})) {
    EXPECT_FALSE(groups.front().packed);
  }
}

TEST_F(GroupRowsTest, GroupsOfASubsetCountItsOwnRows) {
  Add(0, 10, 2);
  Add(1, 10, 2);
  Add(2, 10, 2);
  RowPlan rows;
  rows.subsets = {{0, 1, 2, 3, 4, 5}, {0, 1, 4, 5}};
  const auto groups = GroupRows(tokens_, rows, *kv_);
  EXPECT_EQ(groups[0], (std::vector<AttentionGroup>{{0, 2, 3, 0, 256}}));
  EXPECT_EQ(groups[1], (std::vector<AttentionGroup>{{0, 2, 1, 0, 256}, {2, 2, 1, 2, 256}}));
}

}  // namespace
}  // namespace espalier
