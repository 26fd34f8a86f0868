#include "eval/tasks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>

namespace espalier {
namespace {

using ::testing::ElementsAre;

TEST(JudgeItem, NormsByTheCharactersOfTheChoice) {
  const TaskItem item = ChooseContinuation("Q", std::array<std::string, 2>{"short", "tenletters"});
  // -10 / 5 = -2 against -12 / 10 = -1.2.
  const ItemVerdict verdict = JudgeItem(item, std::array{-10.0, -12.0});
  EXPECT_EQ(verdict.picked, 0u);
  EXPECT_EQ(verdict.picked_norm, 1u);
}

TEST(JudgeItem, CountsCharactersNotBytesAndNotTheDelimiter) {
  // 4 characters in 8 bytes against 5 in 5: -5 / 4 = -1.25 loses to -6 / 5 = -1.2, though -5 / 8 would win.
  const TaskItem item = ChooseContinuation("Q", std::array<std::string, 2>{"éééé", "eeeee"});
  EXPECT_THAT(item.characters, ElementsAre(4, 5));
  EXPECT_EQ(JudgeItem(item, std::array{-5.0, -6.0}).picked_norm, 1u);
}

TEST(JudgeItem, PicksTheFirstOfEquals) {
  const TaskItem item = ChooseContinuation("Q", std::array<std::string, 3>{"aa", "bb", "cc"});
  EXPECT_EQ(JudgeItem(item, std::array{-2.0, -1.0, -1.0}).picked, 1u);
  EXPECT_EQ(JudgeItem(item, std::array{-2.0, -1.0, -1.0}).picked_norm, 1u);
  EXPECT_EQ(JudgeItem(item, std::array{-3.0, -3.0, -3.0}).picked, 0u);
}

TEST(JudgeItem, NeverPicksAnEmptyChoiceByCharacters) {
  const TaskItem item = ChooseContinuation("Q", std::array<std::string, 2>{"", "b"});
  EXPECT_EQ(JudgeItem(item, std::array{-1.0, -100.0}).picked, 0u);
  EXPECT_EQ(JudgeItem(item, std::array{-1.0, -100.0}).picked_norm, 1u);
  EXPECT_EQ(JudgeItem(item, std::array{0.0, -100.0}).picked_norm, 1u);
}

TEST(ChooseContinuation, PutsTheDelimiterBeforeEachChoice) {
  const TaskItem item = ChooseContinuation("Q:", std::array<std::string, 2>{"yes", "no"});
  ASSERT_EQ(item.requests.size(), 2u);
  EXPECT_EQ(item.requests[0].context, "Q:");
  EXPECT_EQ(item.requests[0].continuation, " yes");
  EXPECT_EQ(item.requests[1].continuation, " no");
  EXPECT_EQ(ChooseContinuation("Q:", std::array<std::string, 1>{"yes"}, "\n").requests[0].continuation, "\nyes");
}

TEST(ChooseContext, ScoresOneContinuationAfterEachContextWithoutAccNorm) {
  const TaskItem item = ChooseContext(std::array<std::string, 2>{"The cat", "The longer dog"}, "slept on.");
  ASSERT_EQ(item.requests.size(), 2u);
  EXPECT_EQ(item.requests[0].context, "The cat");
  EXPECT_EQ(item.requests[1].context, "The longer dog");
  EXPECT_EQ(item.requests[0].continuation, " slept on.");
  EXPECT_EQ(item.requests[1].continuation, " slept on.");
  EXPECT_TRUE(item.characters.empty());
  const ItemVerdict verdict = JudgeItem(item, std::array{-3.0, -2.0});
  EXPECT_EQ(verdict.picked, 1u);
  EXPECT_EQ(verdict.picked_norm, 1u);
}

}  // namespace
}  // namespace espalier
