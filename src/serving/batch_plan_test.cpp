#include "serving/batch_plan.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

namespace espalier {
namespace {

using Shares = std::vector<int64_t>;

constexpr BatchDemand kDecoding = {.tokens = 1, .decoding = true};

BatchDemand Prompt(int64_t tokens) { return {.tokens = tokens, .decoding = false}; }

Shares Plan(std::vector<BatchDemand> demands, int64_t prompt_tokens, int64_t step_tokens = 1000) {
  return PlanBatch(demands, prompt_tokens, step_tokens);
}

TEST(PlanBatch, NothingToDoIsNothing) {
  EXPECT_TRUE(Plan({}, 100).empty());
  EXPECT_EQ(Plan({Prompt(0)}, 100), (Shares{0}));
}

TEST(PlanBatch, DecodingRequestsGetTheirTokenAlways) {
  EXPECT_EQ(Plan({kDecoding, Prompt(500), kDecoding}, 100), (Shares{1, 100, 1}));
  EXPECT_EQ(Plan({kDecoding, Prompt(500), kDecoding}, 100, 10), (Shares{1, 8, 1}));
}

TEST(PlanBatch, PromptsShareEvenly) {
  EXPECT_EQ(Plan({Prompt(500), Prompt(500)}, 100), (Shares{50, 50}));
  EXPECT_EQ(Plan({Prompt(500), Prompt(10), Prompt(500)}, 100), (Shares{45, 10, 45}));
  EXPECT_EQ(Plan({Prompt(20), Prompt(30)}, 100), (Shares{20, 30}));
}

TEST(PlanBatch, ARestThatDoesNotDivideIsNotWasted) {
  const Shares shares = Plan({Prompt(500), Prompt(500), Prompt(500)}, 100);
  EXPECT_EQ(std::accumulate(shares.begin(), shares.end(), int64_t{0}), 100);
}

TEST(PlanBatch, WithFewerTokensThanPromptsTheFirstGetThem) {
  EXPECT_EQ(Plan({Prompt(500), Prompt(3), Prompt(400)}, 2), (Shares{1, 1, 0}));
  EXPECT_EQ(Plan({Prompt(500), Prompt(3), Prompt(400)}, 0), (Shares{1, 0, 0})) << "one token gets through in any case";
}

TEST(PlanBatch, NeverGivesMoreThanThereIsNorLessThanThereCouldBe) {
  std::mt19937 random(5);
  for (int round = 0; round < 5000; ++round) {
    std::vector<BatchDemand> demands;
    int64_t decoding = 0;
    int64_t wanted = 0;
    for (uint32_t i = 0; i < random() % 9; ++i) {
      demands.push_back(random() % 3 == 0 ? kDecoding : Prompt(static_cast<int64_t>(random() % 50)));
      (demands.back().decoding ? decoding : wanted) += demands.back().tokens;
    }
    const auto prompt_tokens = static_cast<int64_t>(1 + random() % 80);
    const auto step_tokens = static_cast<int64_t>(9 + random() % 80);
    const Shares shares = Plan(demands, prompt_tokens, step_tokens);
    int64_t given = 0;
    for (size_t i = 0; i < demands.size(); ++i) {
      EXPECT_LE(shares[i], demands[i].tokens);
      EXPECT_GE(shares[i], demands[i].decoding ? 1 : 0);
      given += demands[i].decoding ? 0 : shares[i];
      for (size_t j = 0; j < demands.size(); ++j) {  // nobody gets two more than one who could do with more
        if (!demands[i].decoding && !demands[j].decoding && shares[j] < demands[j].tokens) {
          EXPECT_LE(shares[i], shares[j] + 1);
        }
      }
    }
    EXPECT_EQ(given, std::min(wanted, std::max<int64_t>(std::min(prompt_tokens, step_tokens - decoding), 1)));
  }
}

}  // namespace
}  // namespace espalier
