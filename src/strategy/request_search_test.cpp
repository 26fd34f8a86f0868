#include "strategy/request_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <limits>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "importance/candidates.h"
#include "importance/gsi.h"
#include "strategy/file_bytes_for_test.h"
#include "support/toy_model.h"

namespace espalier {
namespace {

using test::FileBytes;
using test::FunctionEvaluator;
using test::kToyBlocks;
using test::kToyLayers;
using test::ToyKl;

// 100 bytes for every block.
uint64_t EvenBytes(const Plan& plan) { return 100 * static_cast<uint64_t>(plan.kept_attention() + plan.kept_ffn()); }

uint64_t WeightBytes(const Plan& plan) {
  return 100'000 * static_cast<uint64_t>(plan.kept_attention()) + 260'000 * static_cast<uint64_t>(plan.kept_ffn());
}

// From the least that a plan takes to what the dense one takes.
std::vector<uint64_t> LimitsOf(const PlanBytes& bytes, int n) {
  uint64_t least = kNoSuchPlan;
  for (const auto& [plan, loss] : test::AllToyPlans()) {
    least = std::min(least, bytes(plan));
  }
  const uint64_t dense = bytes(Plan::Dense(kToyLayers));
  std::vector<uint64_t> limits;
  for (int i = 0; i < n; ++i) {
    limits.push_back(least + (dense - least) * static_cast<uint64_t>(i) / static_cast<uint64_t>(n - 1));
  }
  return limits;
}

bool HasRoom(const PlanBytes& bytes, uint64_t limit, const Plan& plan) {
  for (const BlockId block : plan.dropped()) {
    Plan larger = plan;
    larger.Restore(block);
    if (bytes(larger) <= limit) {
      return true;
    }
  }
  return false;
}

// Losses whose first windows say little of the others.
double FickleKl(const Plan& plan, int64_t window) {
  std::mt19937_64 random(std::hash<std::string>()(plan.ToText()) + static_cast<uint64_t>(window));
  return ToyKl(plan, window) * (0.5 + static_cast<double>(random() % 1000) / 1000);
}

TEST(RequestSearch, GsiIsTheGreedyLoopWithEveryCandidateCounted) {
  for (const PlanBytes& bytes : {PlanBytes(EvenBytes), PlanBytes(WeightBytes), PlanBytes(FileBytes)}) {
    for (const uint64_t limit : LimitsOf(bytes, 40)) {
      FunctionEvaluator naive(kToyLayers, 3, FickleKl);
      std::set<std::string> measured;
      Plan base = Plan::Dense(kToyLayers);
      std::vector<BlockId> order;
      while (bytes(base) > limit) {
        double least = std::numeric_limits<double>::infinity();
        std::optional<BlockId> going;
        const DropCandidates candidates = CandidatesOf(base);
        for (size_t i = 0; i < candidates.plans.size(); ++i) {
          if (bytes(candidates.plans[i]) == kNoSuchPlan) {
            continue;
          }
          measured.insert(candidates.plans[i].ToText());
          const double loss = *naive.Measure(candidates.plans[i]);
          if (loss < least) {
            least = loss;
            going = candidates.blocks[i];
          }
        }
        if (!going) {
          break;  // one block left, and too large: the chain's end
        }
        base.Drop(*going);
        order.push_back(*going);
      }
      for (int b = 0; b < kToyBlocks; ++b) {
        if (base.kept({b})) {
          order.push_back({b});
        }
      }
      const Plan expected = *DropUntilItTakes(bytes, limit, order);
      if (!expected.dense()) {
        measured.insert(expected.ToText());
      }

      FunctionEvaluator evaluator(kToyLayers, 3, FickleKl);
      const auto found = SearchByGsi(&evaluator, bytes, limit);
      ASSERT_TRUE(found.ok()) << found.status().message();
      EXPECT_EQ(found->plan, expected) << limit;
      EXPECT_EQ(found->loss, expected.dense() ? 0 : *naive.Measure(expected));
      EXPECT_EQ(found->evaluations, static_cast<double>(measured.size()));
      EXPECT_LE(bytes(found->plan), limit);
      EXPECT_FALSE(HasRoom(bytes, limit, found->plan)) << limit << " " << found->plan.ToText();
    }
  }
}

TEST(RequestSearch, GsiCountsARequestAsIfThereWereNoOther) {
  FunctionEvaluator evaluator(kToyLayers, 4, ToyKl);
  EXPECT_EQ(SearchByGsi(&evaluator, EvenBytes, 1000)->evaluations, 0);
  EXPECT_EQ(evaluator.work().windows_measured, 0);
  EXPECT_EQ(SearchByGsi(&evaluator, EvenBytes, 999)->evaluations, 10);
  EXPECT_EQ(SearchByGsi(&evaluator, EvenBytes, 800)->evaluations, 10 + 9);
  const auto first = SearchByGsi(&evaluator, EvenBytes, 0);
  EXPECT_EQ(first->evaluations, ChainEvaluations(kToyBlocks));
  EXPECT_EQ(first->evaluations, 55);
  const int64_t measured = evaluator.work().windows_measured;
  const auto again = SearchByGsi(&evaluator, EvenBytes, 0);
  EXPECT_EQ(again->evaluations, 55);
  EXPECT_EQ(again->loss, first->loss);
  EXPECT_EQ(evaluator.work().windows_measured, measured);
}

TEST(RequestSearch, AKnownOrderSparesTheRoundsNotTheCount) {
  FunctionEvaluator evaluator(kToyLayers, 3, FickleKl);
  const auto chain = RankByGsi(&evaluator);
  ASSERT_TRUE(chain.ok());
  for (const uint64_t limit : LimitsOf(FileBytes, 12)) {
    FunctionEvaluator searching(kToyLayers, 3, FickleKl);
    FunctionEvaluator replaying(kToyLayers, 3, FickleKl);
    const auto searched = SearchByGsi(&searching, FileBytes, limit);
    const auto replayed = SearchByGsi(&replaying, FileBytes, limit, chain->ranking.drop_order);
    ASSERT_TRUE(searched.ok() && replayed.ok());
    EXPECT_EQ(searched->plan, replayed->plan);
    EXPECT_EQ(searched->evaluations, replayed->evaluations);
    EXPECT_LE(replaying.work().windows_measured, searching.work().windows_measured);
  }
  EXPECT_EQ(SearchByGsiWithin(&evaluator, 0.7)->plan,
            SearchByGsiWithin(&evaluator, 0.7, chain->ranking.drop_order)->plan);
}

TEST(RequestSearch, GsiWithinALossStopsBeforeTheBlockThatPassesIt) {
  for (const double limit : {0.0, 0.1, 0.3, 0.7, 1.5, 100.0}) {
    FunctionEvaluator naive(kToyLayers, 3, FickleKl);
    std::set<std::string> measured;
    Plan expected = Plan::Dense(kToyLayers);
    while (expected.kept_attention() + expected.kept_ffn() > 1) {
      double least = std::numeric_limits<double>::infinity();
      Plan next;
      for (const Plan& plan : CandidatesOf(expected).plans) {
        measured.insert(plan.ToText());
        if (const double loss = *naive.Measure(plan); loss < least) {
          least = loss;
          next = plan;
        }
      }
      if (least > limit) {
        break;
      }
      expected = next;
    }
    FunctionEvaluator evaluator(kToyLayers, 3, FickleKl);
    const auto found = SearchByGsiWithin(&evaluator, limit);
    ASSERT_TRUE(found.ok()) << found.status().message();
    EXPECT_EQ(found->plan, expected) << limit;
    EXPECT_LE(found->loss, limit);
    EXPECT_EQ(found->evaluations, static_cast<double>(measured.size()));
  }
}

TEST(RequestSearch, EvolutionFindsTheOptimum) {
  const auto plans = test::AllToyPlans();  // least loss first
  double evaluations = 0, plans_without_room = 0;
  for (const PlanBytes& bytes : {PlanBytes(EvenBytes), PlanBytes(WeightBytes), PlanBytes(FileBytes)}) {
    for (const uint64_t limit : LimitsOf(bytes, 12)) {
      // No search leaves room for a block, even where it does harm.
      Plan optimum = Plan::Dense(kToyLayers);
      int choice = 1;
      if (bytes(optimum) > limit) {
        std::vector<Plan> answers;
        for (const auto& [plan, loss] : plans) {
          if (bytes(plan) <= limit && !HasRoom(bytes, limit, plan)) {
            answers.push_back(plan);
          }
        }
        choice = static_cast<int>(answers.size());
        optimum = answers.front();
      }
      for (uint64_t seed = 1; seed <= 5; ++seed) {
        FunctionEvaluator evaluator(kToyLayers, 8, ToyKl);
        const auto found = SearchByEvolution(&evaluator, bytes, limit, {.generations = 10, .seed = seed});
        ASSERT_TRUE(found.ok()) << found.status().message();
        EXPECT_NEAR(found->loss, optimum.dense() ? 0 : *evaluator.Measure(optimum), 1e-12)
            << limit << " seed " << seed << " " << found->plan.ToText() << " instead of " << optimum.ToText();
        EXPECT_LE(bytes(found->plan), limit);
        EXPECT_FALSE(HasRoom(bytes, limit, found->plan)) << limit << " " << found->plan.ToText();
        evaluations += found->evaluations;
        plans_without_room += choice;
      }
    }
  }
  EXPECT_LT(evaluations, 0.5 * plans_without_room);  // not by looking at all of them
}

TEST(RequestSearch, EvolutionEndsWithTheBestOfAllThatItMeasuredWhole) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    FunctionEvaluator evaluator(kToyLayers, 16, FickleKl);
    const auto found = SearchByEvolution(&evaluator, WeightBytes, 1'100'000, {.seed = seed});
    ASSERT_TRUE(found.ok()) << found.status().message();
    EXPECT_EQ(found->loss, *evaluator.Measure(found->plan));
    int whole = 0, parts = 0;
    for (const ArchiveRow& row : evaluator.archive().rows()) {
      if (row.windows.size() == 16) {
        ++whole;
        EXPECT_GE(*evaluator.Measure(row.plan), found->loss);
      } else {
        ++parts;
        EXPECT_TRUE(row.windows.size() == 2 || row.windows.size() == 8) << row.windows.size();
      }
    }
    EXPECT_GT(whole, 1);
    EXPECT_GT(parts, whole);
  }
}

TEST(RequestSearch, EvolutionCountsPartsOfThePlansItMeasured) {
  // One window of 4 plans at first and 7 more of the best; then one of 5 offspring, 3 more of the best 4 and 4 more of
  // the best of these. None of these offspring is among the plans drawn first.
  const EvolutionOptions small = {.generations = 1, .offspring = 5, .first_plans = 4};
  FunctionEvaluator of8(kToyLayers, 8, ToyKl);
  EXPECT_EQ(SearchByEvolution(&of8, EvenBytes, 500, small)->evaluations, (4 + 7 + 5 + 4 * 3 + 4) / 8.0);
  // Of three windows one, two and three.
  FunctionEvaluator of3(kToyLayers, 3, ToyKl);
  EXPECT_EQ(SearchByEvolution(&of3, EvenBytes, 500, small)->evaluations, (4 + 2 + 5 + 4 + 1) / 3.0);

  // All that a search measured where nothing was known; and where all is, the same.
  for (const uint64_t limit : LimitsOf(WeightBytes, 7)) {
    FunctionEvaluator evaluator(kToyLayers, 8, FickleKl);
    const auto found = SearchByEvolution(&evaluator, WeightBytes, limit, {.seed = 3});
    const int64_t measured = evaluator.work().windows_measured;
    EXPECT_EQ(found->evaluations, static_cast<double>(measured) / 8);
    const auto again = SearchByEvolution(&evaluator, WeightBytes, limit, {.seed = 3});
    EXPECT_EQ(again->plan, found->plan);
    EXPECT_EQ(again->evaluations, found->evaluations);
    EXPECT_EQ(evaluator.work().windows_measured, measured);
  }
}

TEST(RequestSearch, OffspringSwitchFewBlocksAndRatherFewer) {
  std::vector<double> share(4);  // of offspring, by the number of blocks that went and came
  constexpr int kSeeds = 100, kOffspring = 5;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    FunctionEvaluator evaluator(kToyLayers, 1, ToyKl);
    const EvolutionOptions options = {.generations = 1, .offspring = kOffspring, .first_plans = 1, .seed = seed};
    ASSERT_TRUE(SearchByEvolution(&evaluator, EvenBytes, 500, options).ok());
    const auto& rows = evaluator.archive().rows();
    ASSERT_EQ(rows.size(), 1 + kOffspring);  // the parent first
    for (size_t i = 1; i < rows.size(); ++i) {
      size_t returned = 0;
      for (const BlockId block : rows.front().plan.dropped()) {
        returned += rows[i].plan.kept(block) ? 1 : 0;
      }
      ASSERT_TRUE(returned >= 1 && returned <= 3) << returned;
      ASSERT_EQ(rows[i].plan.dropped().size(), 5u);
      share[returned] += 1.0 / (kSeeds * kOffspring);
    }
  }
  // The smaller of two draws from 1 to 3.
  EXPECT_NEAR(share[1], 5.0 / 9, 0.06);
  EXPECT_NEAR(share[2], 3.0 / 9, 0.06);
  EXPECT_NEAR(share[3], 1.0 / 9, 0.06);
}

TEST(RequestSearch, EvolutionIsDrawnByItsSeed) {
  const auto search = [](uint64_t seed) {
    FunctionEvaluator evaluator(kToyLayers, 2, ToyKl);
    return *SearchByEvolution(&evaluator, EvenBytes, 500, {.generations = 1, .first_plans = 1, .seed = seed});
  };
  std::set<std::string> plans;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    const SearchedPlan plan = search(seed);
    EXPECT_EQ(search(seed).plan, plan.plan);
    plans.insert(plan.plan.ToText());
  }
  EXPECT_GT(plans.size(), 3u);
}

TEST(RequestSearch, AChainAnswersLikeTheSearchThatItIs) {
  FunctionEvaluator chain(kToyLayers, 2, ToyKl);
  const std::vector<BlockId> order = RankByGsi(&chain)->ranking.drop_order;
  int on_chain = 0, with_more = 0;
  for (const PlanBytes& bytes : {PlanBytes(EvenBytes), PlanBytes(WeightBytes), PlanBytes(FileBytes)}) {
    for (const uint64_t limit : LimitsOf(bytes, 30)) {
      FunctionEvaluator evaluator(kToyLayers, 2, ToyKl);
      const auto answer = AnswerFromChain(&evaluator, order, bytes, limit);
      const auto searched = SearchByGsi(&evaluator, bytes, limit);
      ASSERT_TRUE(answer.ok() && searched.ok());
      EXPECT_EQ(answer->plan, searched->plan);
      EXPECT_EQ(answer->loss, searched->loss);
      Plan prefix = Plan::Dense(kToyLayers);
      for (size_t i = 0; i < answer->plan.dropped().size(); ++i) {
        prefix.Drop(order[i]);
      }
      EXPECT_EQ(answer->evaluations, answer->plan == prefix ? 0 : 1);
      (answer->plan == prefix ? on_chain : with_more) += 1;
    }
  }
  EXPECT_GT(on_chain, 30);
  EXPECT_GT(with_more, 10);
}

TEST(RequestSearch, RefusesWhatNothingMeetsAndMeasuresNothing) {
  const uint64_t least = LimitsOf(FileBytes, 2).front();
  FunctionEvaluator evaluator(kToyLayers, 2, ToyKl);
  std::vector<BlockId> order;
  for (int b = 0; b < kToyBlocks; ++b) {
    order.push_back({b});
  }
  for (const auto& answer :
       {SearchByGsi(&evaluator, FileBytes, least - 1), SearchByEvolution(&evaluator, FileBytes, least - 1),
        AnswerFromChain(&evaluator, order, FileBytes, least - 1)}) {
    EXPECT_EQ(answer.status().code(), ErrorCode::kOutOfBudget);
    EXPECT_NE(answer.status().message().find(" " + std::to_string(least) + " bytes"), std::string::npos)
        << answer.status().message();
  }
  EXPECT_EQ(evaluator.work().windows_measured, 0);
  EXPECT_TRUE(SearchByGsi(&evaluator, FileBytes, least).ok());
  EXPECT_TRUE(SearchByEvolution(&evaluator, FileBytes, least).ok());
}

TEST(RequestSearch, StopsWhenTold) {
  for (const bool evolution : {false, true}) {
    for (const int after : {0, 1, 25, 60}) {
      std::atomic<bool> stop = after == 0;
      int measured = 0;
      FunctionEvaluator evaluator(kToyLayers, 4, [&](const Plan& plan, int64_t window) {
        stop = ++measured >= after;
        return ToyKl(plan, window);
      });
      evaluator.StopWhen(&stop);
      const auto found =
          evolution ? SearchByEvolution(&evaluator, EvenBytes, 500) : SearchByGsi(&evaluator, EvenBytes, 500);
      EXPECT_EQ(found.status().code(), ErrorCode::kAborted) << after;
    }
  }
}

}  // namespace
}  // namespace espalier
