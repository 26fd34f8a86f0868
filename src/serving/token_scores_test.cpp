#include "serving/token_scores.h"

#include <gtest/gtest.h>

#include <cmath>

namespace espalier {
namespace {

TEST(ScoreToken, IsTheSoftmaxInClosedForm) {
  // Odds 1 : 2 : 5, so the probabilities are 1/8, 1/4 and 5/8.
  const std::vector<float> logits = {0, std::log(2.0f), std::log(5.0f)};
  const double expected[] = {std::log(1.0 / 8), std::log(1.0 / 4), std::log(5.0 / 8)};
  for (int32_t token = 0; token < 3; ++token) {
    const TokenScores scores = ScoreToken(logits, token, 0);
    EXPECT_EQ(scores.chosen.token, token);
    EXPECT_NEAR(scores.chosen.logprob, expected[token], 1e-6);
    EXPECT_TRUE(scores.top.empty());
  }
  const TokenScores all = ScoreToken(logits, 0, 3);
  ASSERT_EQ(all.top.size(), 3u);
  for (int32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(all.top[static_cast<size_t>(i)].token, 2 - i);
    EXPECT_NEAR(all.top[static_cast<size_t>(i)].logprob, expected[2 - i], 1e-6);
  }
}

TEST(ScoreToken, LogitsFarFromZeroNeitherOverflowNorVanish) {
  for (const float shift : {-1e4f, 0.0f, 1e4f}) {
    const std::vector<float> logits = {shift, shift + 1, shift - 300};
    const TokenScores scores = ScoreToken(logits, 2, 1);
    EXPECT_NEAR(scores.chosen.logprob, -300 - std::log(1 + std::exp(1.0)), 1e-3) << shift;
    EXPECT_NEAR(scores.top[0].logprob, 1 - std::log(1 + std::exp(1.0)), 1e-3) << shift;
  }
}

TEST(ScoreToken, ABannedTokenHasNoProbability) {
  const std::vector<float> logits = {1, -INFINITY, 1};
  EXPECT_EQ(ScoreToken(logits, 1, 0).chosen.logprob, -INFINITY);
  EXPECT_NEAR(ScoreToken(logits, 0, 0).chosen.logprob, std::log(0.5), 1e-6);
}

TEST(ScoreToken, LowerIdsComeFirstAmongEquals) {
  const TokenScores scores = ScoreToken(std::vector<float>{1, 3, 3, 0, 3}, 0, 4);
  std::vector<int32_t> order;
  for (const ScoredToken& token : scores.top) {
    order.push_back(token.token);
  }
  EXPECT_EQ(order, (std::vector<int32_t>{1, 2, 4, 0}));
}

TEST(ScoreToken, MoreThanTheVocabularyIsTheVocabulary) {
  EXPECT_EQ(ScoreToken(std::vector<float>{1, 2}, 0, 20).top.size(), 2u);
}

}  // namespace
}  // namespace espalier
