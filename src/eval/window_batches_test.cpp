#include "eval/window_batches.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "eval/fake_engine_for_test.h"

namespace espalier {
namespace {

using test::SomeWindows;
using ::testing::HasSubstr;

TEST(WindowBatches, GroupsAreThoseOfLlamaPerplexity) {
  EXPECT_EQ(WindowsPerGroup(Protocol::kLlama, 512), 4);
  EXPECT_EQ(WindowsPerGroup(Protocol::kLlama, 2048), 1);
  EXPECT_EQ(WindowsPerGroup(Protocol::kLlama, 4096), 1);
  EXPECT_EQ(WindowsPerGroup(Protocol::kGptq, 512), 1);
  const auto groups = GroupWindows(SomeWindows(Protocol::kLlama, 512, 6));
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_EQ(groups[1].first, 4);
  EXPECT_EQ(groups[1].count, 2);
}

TEST(WindowBatches, TakeEquallyManyTokensOfEachWindow) {
  const Windows windows = SomeWindows(Protocol::kLlama, 512, 6);
  const auto four = CutBatches(windows, {0, 4}, 512, 0);
  ASSERT_EQ(four.size(), 4u);  // 4 x 128 tokens each
  EXPECT_EQ(four[0].tokens.size(), 512u);
  EXPECT_EQ(four[0].tokens[128].sequence, 1);
  EXPECT_TRUE(four[1].rows.empty());
  EXPECT_EQ(four[2].rows.size(), 512u);  // positions 256.. of all four
  const auto two = CutBatches(windows, {4, 2}, 512, 10);
  ASSERT_EQ(two.size(), 2u);
  EXPECT_EQ(two[1].rows.size(), 512u);
  EXPECT_EQ(two[1].rows[0].window, 4);
  EXPECT_EQ(two[1].rows[0].position, 256);
  EXPECT_EQ(two[1].tokens.back().sequence, 11);
}

// Every token once, in order within its sequence, and a row for exactly the positions from first_target - 1 on.
TEST(WindowBatches, HoldEveryTokenOnceInOrder) {
  for (const Protocol protocol : {Protocol::kGptq, Protocol::kLlama}) {
    for (const int n_ubatch : {1, 2, 7, 16, 512}) {
      const Windows windows = SomeWindows(protocol, 12, 5);
      std::map<SequenceId, std::vector<int32_t>> sequences;
      std::map<int64_t, int64_t> rows;
      for (const WindowBatch& batch : CutBatches(windows, {1, 3}, n_ubatch, 20)) {
        EXPECT_LE(batch.tokens.size(), static_cast<size_t>(std::max(n_ubatch, 3)));
        size_t row = 0;
        for (const BatchToken& token : batch.tokens) {
          auto& sequence = sequences[token.sequence];
          if (token.want_logits) {
            ASSERT_LT(row, batch.rows.size());
            EXPECT_EQ(batch.rows[row].window, token.sequence - 20 + 1);
            EXPECT_EQ(batch.rows[row].position, static_cast<int64_t>(sequence.size()));
            ++rows[batch.rows[row].window];
            ++row;
          }
          sequence.push_back(token.token);
        }
        EXPECT_EQ(row, batch.rows.size());
      }
      ASSERT_EQ(sequences.size(), 3u);
      for (int i = 0; i < 3; ++i) {
        const auto window = windows.at(1 + i);
        EXPECT_EQ(sequences[20 + i], std::vector<int32_t>(window.begin(), window.end()));
        EXPECT_EQ(rows[1 + i], 12 - windows.first_target + 1);
      }
    }
  }
}

TEST(WindowBatches, WorkloadCountsTheSequencesOfAGroup) {
  EXPECT_EQ(EvalWorkload(Protocol::kLlama, 512, 30, 1), Workload::Uniform(4, 512));
  EXPECT_EQ(EvalWorkload(Protocol::kLlama, 512, 2, 2), Workload::Uniform(4, 512));
  EXPECT_EQ(EvalWorkload(Protocol::kGptq, 2048, 30, 2), Workload::Uniform(2, 2048));
}

TEST(WindowBatches, TooFewCellsNameBothNumbers) {
  const test::FakeEngine engine(100);
  EXPECT_TRUE(CheckCapacity(engine, Workload::Uniform(2, 50)).ok());
  const Status status = CheckCapacity(engine, Workload::Uniform(2, 51));
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.code(), ErrorCode::kOutOfBudget);
  EXPECT_THAT(status.message(), HasSubstr("102 KV cells"));
  EXPECT_THAT(status.message(), HasSubstr("100 free"));
}

}  // namespace
}  // namespace espalier
