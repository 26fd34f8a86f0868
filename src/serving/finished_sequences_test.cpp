#include "serving/finished_sequences.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using Tokens = std::vector<int32_t>;

TEST(FinishedSequences, TakesTheOneWithMostInCommonOut) {
  FinishedSequences finished;
  finished.Add(1, {1, 2, 3, 9});
  finished.Add(2, {1, 2, 3, 4, 9, 9});
  finished.Add(3, {1, 2, 8});
  EXPECT_EQ(finished.cells(), 13);
  const auto match = finished.Take(Tokens{1, 2, 3, 4, 5}, 1);
  ASSERT_TRUE(match);
  EXPECT_EQ(match->sequence, 2);
  EXPECT_EQ(match->common_tokens, 4);
  EXPECT_EQ(finished.cells(), 7);
  EXPECT_EQ(finished.sequences(), (std::vector<SequenceId>{1, 3}));
}

TEST(FinishedSequences, TheNewestOfEquals) {
  FinishedSequences finished;
  finished.Add(1, {1, 2, 3});
  finished.Add(2, {1, 2, 4});
  finished.Add(3, {1, 7, 7});
  EXPECT_EQ(finished.Take(Tokens{1, 2, 5}, 1)->sequence, 2);
}

TEST(FinishedSequences, TooLittleInCommonIsNothing) {
  FinishedSequences finished;
  finished.Add(1, {1, 2, 3, 4});
  EXPECT_FALSE(finished.Take(Tokens{1, 2, 9}, 3));
  EXPECT_FALSE(finished.Take(Tokens{9}, 0)) << "nothing in common is no match";
  EXPECT_FALSE(finished.Take(Tokens{}, 0));
  EXPECT_EQ(finished.cells(), 4);
  EXPECT_EQ(finished.Take(Tokens{1, 2, 3}, 3)->common_tokens, 3);
  EXPECT_TRUE(finished.empty());
}

TEST(FinishedSequences, TheOldestGoesFirst) {
  FinishedSequences finished;
  EXPECT_EQ(finished.TakeOldest(), std::nullopt);
  finished.Add(5, {1});
  finished.Add(4, {2, 2});
  EXPECT_EQ(finished.TakeOldest(), 5);
  EXPECT_EQ(finished.cells(), 2);
  EXPECT_EQ(finished.TakeOldest(), 4);
  EXPECT_EQ(finished.cells(), 0);
  EXPECT_TRUE(finished.empty());
}

}  // namespace
}  // namespace espalier
