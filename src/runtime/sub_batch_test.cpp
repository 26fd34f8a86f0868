#include "runtime/sub_batch.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace espalier
