#include "eval/task_likelihoods.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "eval/fake_engine_for_test.h"

namespace espalier::test {
namespace {

using ::testing::HasSubstr;

// By the engine's definition: what token t expects does not depend on what came before it.
double Expected(const EncodedRequest& request) {
  double sum = 0;
  for (size_t i = static_cast<size_t>(request.n_context); i < request.tokens.size(); ++i) {
    sum -= PlainNll(FakeEngine::Row(request.tokens[i - 1], 0, 0), request.tokens[i]);
  }
  return sum;
}

void ExpectEqualsPlainSums(const TaskLikelihoods& result, const std::vector<EncodedItem>& items) {
  ASSERT_EQ(result.values.size(), items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    ASSERT_EQ(result.values[i].size(), items[i].requests.size());
    for (size_t r = 0; r < items[i].requests.size(); ++r) {
      EXPECT_NEAR(result.values[i][r], Expected(items[i].requests[r]), 1e-6) << "item " << i << " request " << r;
    }
  }
}

TEST(ScoreItems, AddsUpTheContinuationAloneGivenTheContext) {
  // After 0 comes 1 (logit 3 against three zeros), so 0 1 is likely and 0 2 is not.
  const double likely = 3 - std::log(std::exp(3.0) + 3);
  const double unlikely = -std::log(std::exp(3.0) + 3);
  const std::vector<EncodedItem> items = {
      {{{{3, 0, 1, 2}, 2}, {{3, 0, 2, 2}, 2}, {{3, 0, 1}, 2}, {{3, 0}, 1}, {{3, 0, 1, 3}, 3}}}};
  FakeEngine engine;
  const auto result = ScoreItems(&engine, items);
  ASSERT_TRUE(result.ok()) << result.status().message();
  ExpectEqualsPlainSums(*result, items);
  EXPECT_NEAR(result->values[0][0], 2 * likely, 1e-6);
  EXPECT_NEAR(result->values[0][1], 2 * unlikely, 1e-6);
  EXPECT_NEAR(result->values[0][2], likely, 1e-6);
  EXPECT_NEAR(result->values[0][3], likely, 1e-6);
  EXPECT_NEAR(result->values[0][4], unlikely, 1e-6);
}

TEST(ScoreItems, ComputesOnceWhatChoicesShare) {
  // Inputs: 0 1 2 | 3 0 and 0 1 2 | 1; the third choice reads nothing that the first two do not share.
  const std::vector<EncodedItem> items = {{{{{0, 1, 2, 3, 0, 1}, 3}, {{0, 1, 2, 1, 1}, 3}, {{0, 1, 2, 2}, 3}}}};
  FakeEngine engine;
  const auto result = ScoreItems(&engine, items);
  ASSERT_TRUE(result.ok()) << result.status().message();
  ExpectEqualsPlainSums(*result, items);
  EXPECT_EQ(result->tokens_computed, 3 + 2 + 1);
}

std::vector<EncodedItem> RandomItems(size_t count, size_t longest) {
  std::vector<EncodedItem> items;
  uint32_t state = 1;
  const auto below = [&state](size_t n) {
    state = state * 1664525U + 1013904223U;
    return static_cast<size_t>(state >> 8) % n;
  };
  for (size_t i = 0; i < count; ++i) {
    EncodedItem item;
    std::vector<int32_t> shared(below(longest / 2));
    std::generate(shared.begin(), shared.end(), [&] { return static_cast<int32_t>(below(4)); });
    for (size_t r = 0; r <= below(4); ++r) {
      EncodedRequest request;
      request.tokens = shared;
      const size_t length = std::max<size_t>(2, shared.size() + 1 + below(longest / 2));
      while (request.tokens.size() < length) {
        request.tokens.push_back(static_cast<int32_t>(below(4)));
      }
      request.n_context = 1 + static_cast<int64_t>(below(length - 1));
      item.requests.push_back(request);
    }
    items.push_back(item);
  }
  return items;
}

TEST(ScoreItems, EqualsPlainSumsForItemsOfEveryShape) {
  for (const size_t longest : {4, 9, 40}) {
    const auto items = RandomItems(200, longest);
    for (const int n_ubatch : {1, 3, 8, 64}) {
      // Not a cell more than it says it needs: whatever is left behind shows.
      FakeEngine engine(TaskWorkload(items, n_ubatch).kv_cells, n_ubatch);
      const auto result = ScoreItems(&engine, items);
      ASSERT_TRUE(result.ok()) << result.status().message();
      ExpectEqualsPlainSums(*result, items);
      EXPECT_FALSE(engine.has_sequences());
    }
  }
}

TEST(ScoreItems, ComputesManyItemsInOneBatch) {
  const auto items = RandomItems(300, 12);
  FakeEngine engine(1024, 64);
  const auto result = ScoreItems(&engine, items);
  ASSERT_TRUE(result.ok()) << result.status().message();
  int64_t tokens = 0;
  for (const auto& batch : engine.batches()) {
    EXPECT_LE(batch.size(), 64u);
    tokens += static_cast<int64_t>(batch.size());
  }
  EXPECT_EQ(tokens, result->tokens_computed);
  EXPECT_EQ(result->batches, static_cast<int64_t>(engine.batches().size()));
  EXPECT_GE(static_cast<double>(tokens) / static_cast<double>(result->batches), 24);
}

TEST(ScoreItems, ReportsProgressToTheEnd) {
  const auto items = RandomItems(20, 8);
  FakeEngine engine;
  int64_t last = 0;
  ASSERT_TRUE(ScoreItems(&engine, items, [&last](int64_t done, int64_t total) {
                EXPECT_GE(done, last);
                EXPECT_EQ(total, 20);
                last = done;
              }).ok());
  EXPECT_EQ(last, 20);
}

TEST(ScoreItems, NothingIsNothing) {
  FakeEngine engine;
  const auto result = ScoreItems(&engine, {});
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->values.empty());
}

TEST(ScoreItems, NamesTheCellsThatAreMissing) {
  const auto items = RandomItems(50, 40);
  FakeEngine engine(16);
  const auto result = ScoreItems(&engine, items);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), ErrorCode::kOutOfBudget);
}

TEST(ScoreItems, RefusesLogitsThatAreNotNumbersAndLeavesNoSequences) {
  const std::vector<EncodedItem> items = {{{{{0, 1}, 1}}}, {{{{0, 2, 3}, 1}}}};
  FakeEngine engine;
  engine.AnswerNanAfter(2);
  const auto result = ScoreItems(&engine, items);
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(result.status().message(), HasSubstr("after token 1 of item 2"));
  EXPECT_FALSE(engine.has_sequences());
}

TEST(TaskWorkload, HoldsTheLongestRequestOrOneSubBatch) {
  const std::vector<EncodedItem> items(10, EncodedItem{{{std::vector<int32_t>(21), 1}, {std::vector<int32_t>(11), 1}}});
  EXPECT_EQ(TaskWorkload(items, 512), (Workload{10, 200, 20}));
  EXPECT_EQ(TaskWorkload(items, 32), (Workload{1, 32, 20}));
  EXPECT_EQ(TaskWorkload(items, 2), (Workload{1, 20, 20}));
}

}  // namespace
}  // namespace espalier::test
