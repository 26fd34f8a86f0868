#include "importance/fronts.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "importance/candidates.h"
#include "importance/density.h"
#include "importance/fake_evaluator_for_test.h"
#include "importance/front_search.h"
#include "importance/influence.h"
#include "importance/race.h"

namespace espalier {
namespace {

using test::FunctionEvaluator;

// Of an engine with a small cache: what is looked at are others, of longer contexts.
MemoryModel ModelOfLayers(int n_layer) {
  MemoryModel memory;
  for (int il = 0; il < n_layer; ++il) {
    memory.block_bytes.push_back(100);
    memory.block_bytes.push_back(300);
  }
  memory.global_bytes = 1000;
  memory.kv = {.key_bytes_per_cell = 5, .value_bytes_per_cell = 5, .n_planes = 2, .page_bytes = 1, .capacity = 16};
  return memory;
}

Plan PlanOfBits(uint32_t bits, int n_layer) {
  Plan plan = Plan::Dense(n_layer);
  for (int b = 0; b < 2 * n_layer; ++b) {
    if ((bits >> b & 1U) != 0) {
      plan.Drop({b});
    }
  }
  return plan;
}

uint64_t BytesOf(const MemoryModel& memory, const Plan& plan, int64_t cells) {
  uint64_t bytes = 0;
  for (int b = 0; b < plan.n_block(); ++b) {
    bytes += plan.kept({b}) ? BytesFreed(memory, {b}, cells) : 0;
  }
  return bytes;
}

TEST(Fronts, LossToBeatIsThatOfABruteForceScan) {
  const MemoryModel memory = ModelOfLayers(3);
  const std::vector<int64_t> cells = {1, 20, 500};
  std::mt19937 random(5);
  Fronts fronts(memory, cells);
  std::vector<std::pair<Plan, double>> added;
  for (int i = 0; i < 60; ++i) {
    const Plan plan = PlanOfBits(random() % 64, 3);
    const double loss = plan.dense() ? 0 : 0.1 + static_cast<double>(random() % 100);
    fronts.Add(plan, loss);
    added.emplace_back(plan, loss);
  }
  for (uint32_t bits = 0; bits < 64; ++bits) {
    const Plan plan = PlanOfBits(bits, 3);
    double expected = 0;
    for (const int64_t n : cells) {
      double least = std::numeric_limits<double>::infinity();
      for (const auto& [other, loss] : added) {
        if (BytesOf(memory, other, n) <= BytesOf(memory, plan, n)) {
          least = std::min(least, loss);
        }
      }
      expected = std::max(expected, least);
    }
    EXPECT_EQ(fronts.LossToBeat(plan), expected) << plan.ToText();
  }
}

TEST(Fronts, GainIsTheAreaBelowTheStep) {
  MemoryModel memory = ModelOfLayers(3);
  memory.kv.key_bytes_per_cell = memory.kv.value_bytes_per_cell = 0;
  Fronts fronts(memory, {10});
  const auto loss_of = [&](const char* drop, double loss) { fronts.Add(*Plan::ParseDrop(drop, 3), loss); };
  fronts.Add(Plan::Dense(3), 0);  // 2200 bytes
  loss_of("f0", 0.4);             // 1900
  loss_of("f0,f1,f2", 2);         // 1300
  // 1600 bytes: between 1600 and 1900 the front loses 2, from there on 0.4.
  const Plan plan = *Plan::ParseDrop("f0,f1", 3);
  EXPECT_NEAR(fronts.Gain(plan, 1, 0), std::log(2.0) * std::log(1900.0 / 1600), 1e-12);
  EXPECT_NEAR(fronts.Gain(plan, 0.3, 0),
              std::log(2 / 0.3) * std::log(1900.0 / 1600) + std::log(0.4 / 0.3) * std::log(2200.0 / 1900), 1e-12);
  EXPECT_EQ(fronts.Gain(plan, 2, 0), 0);
  EXPECT_EQ(fronts.Gain(plan, 3, 0), 0);
  fronts.Add(plan, 1);
  EXPECT_EQ(fronts.Gain(plan, 1, 0), 0);
}

TEST(Fronts, HoldNoPlanThatAnotherBeats) {
  const MemoryModel memory = ModelOfLayers(3);
  Fronts fronts(memory, {10});
  EXPECT_TRUE(fronts.Add(*Plan::ParseDrop("f1", 3), 0.5));
  EXPECT_FALSE(fronts.Add(*Plan::ParseDrop("f0", 3), 0.5));  // equal bytes, no better
  EXPECT_FALSE(fronts.Add(*Plan::ParseDrop("a0", 3), 0.6));  // more bytes and worse
  EXPECT_TRUE(fronts.Add(*Plan::ParseDrop("f2", 3), 0.4));   // takes f1's place
  const std::vector<Plan> expected = {*Plan::ParseDrop("f2", 3)};
  EXPECT_EQ(fronts.Plans(), expected);
}

// A loss with interactions, strictly rising with what is dropped.
double Interacting(const Plan& plan, int64_t window) {
  double loss = 0;
  const auto dropped = plan.dropped();
  for (size_t i = 0; i < dropped.size(); ++i) {
    loss += 0.1 + 0.03 * ((dropped[i].index * 5) % 7);
    for (size_t j = 0; j < i; ++j) {
      loss += 0.006 * ((dropped[i].index * 3 + dropped[j].index * 11) % 6);
    }
  }
  return loss * (1 + 0.05 * static_cast<double>(window % 3));
}

TEST(SearchFronts, ReachesTheTrueFrontOfASmallModel) {
  constexpr int kLayers = 4;
  const MemoryModel memory = ModelOfLayers(kLayers);
  const std::vector<int64_t> cells = {1, 30, 300};
  FunctionEvaluator evaluator(kLayers, 8, Interacting);
  ASSERT_TRUE(evaluator.Measure(Plan::Dense(kLayers)).ok());
  for (const int64_t n : cells) {
    ASSERT_TRUE(RankByDensity(&evaluator, memory, n).ok());
  }
  FrontSearchOptions options;
  options.kv_cells = cells;
  const auto result = SearchFronts(&evaluator, memory, options, [](const FrontSearchResult&) { return false; });
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_TRUE(result->exhausted);

  Fronts truth(memory, cells);
  Fronts found(memory, cells);
  found.AddAll(evaluator.archive());
  for (uint32_t bits = 0; bits < 256; ++bits) {
    const Plan plan = PlanOfBits(bits, kLayers);
    double sum = 0;
    for (int64_t window = 0; window < 8; ++window) {
      sum += Interacting(plan, window);
    }
    truth.Add(plan, sum / static_cast<double>(evaluator.tokens_scored()));
  }
  for (uint32_t bits = 0; bits < 256; ++bits) {
    const Plan plan = PlanOfBits(bits, kLayers);
    EXPECT_LE(found.LossToBeat(plan), 1.01 * truth.LossToBeat(plan) + 1e-12) << plan.ToText();
  }
}

// Three blocks that are all but harmless together: nothing that the surrogate learns from says so.
TEST(SearchFronts, FindsANeighbourThatTheSurrogateWouldNeverTry) {
  constexpr int kLayers = 4;
  const auto kl = [](const Plan& plan, int64_t) {
    double sum = 0;
    for (const BlockId block : plan.dropped()) {
      sum += 1 + 0.3 * block.index;
    }
    return plan.ToText() == "a0=0 f1=0 f2=0" ? 0.1 * sum : sum;
  };
  FunctionEvaluator evaluator(kLayers, 8, kl);
  ASSERT_TRUE(evaluator.Measure(Plan::Dense(kLayers)).ok());
  ASSERT_TRUE(RankByDensity(&evaluator, ModelOfLayers(kLayers), 10).ok());
  FrontSearchOptions options;
  options.kv_cells = {10};
  options.optimism = {0};
  const auto result =
      SearchFronts(&evaluator, ModelOfLayers(kLayers), options, [](const FrontSearchResult&) { return false; });
  ASSERT_TRUE(result.ok()) << result.status().message();
  const auto hidden = Plan::Parse("a0=0 f1=0 f2=0", kLayers);
  ASSERT_TRUE(hidden.ok());
  EXPECT_TRUE(evaluator.archive().LossOf(*hidden).has_value());
}

TEST(SearchFronts, TakesTextsOfAnyLength) {
  for (const int64_t windows : {1, 2, 3}) {
    FunctionEvaluator evaluator(4, windows, Interacting);
    ASSERT_TRUE(RankByDensity(&evaluator, ModelOfLayers(4), 10).ok());
    FrontSearchOptions options;
    options.kv_cells = {10};
    const auto result = SearchFronts(&evaluator, ModelOfLayers(4), options,
                                     [](const FrontSearchResult& so_far) { return so_far.tried == 40; });
    ASSERT_TRUE(result.ok()) << result.status().message();
    EXPECT_GT(result->tried, 0);
  }
}

TEST(SearchFronts, StopsWhenTimeIsUp) {
  FunctionEvaluator evaluator(4, 8, Interacting);
  ASSERT_TRUE(RankByDensity(&evaluator, ModelOfLayers(4), 10).ok());
  FrontSearchOptions options;
  options.kv_cells = {10};
  const auto result = SearchFronts(&evaluator, ModelOfLayers(4), options,
                                   [](const FrontSearchResult& so_far) { return so_far.tried == 3; });
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->tried, 3);
  EXPECT_FALSE(result->exhausted);
}

TEST(Race, TheBestByLossPerByteIsFoundWhereWindowsAgree) {
  FunctionEvaluator evaluator(4, 8, Interacting);
  const auto plans = CandidatesOf(Plan::Dense(4)).plans;
  std::vector<Contender> contenders;
  size_t expected = 0;
  double least = 1e9;
  ASSERT_TRUE(evaluator.Measure(Plan::Dense(4)).ok());
  for (size_t i = 0; i < plans.size(); ++i) {
    contenders.push_back({plans[i], i % 2 == 0 ? 100.0 : 300.0});
    const double key = Interacting(plans[i], 0) / contenders.back().bytes;
    if (key < least) {
      least = key;
      expected = i;
    }
  }
  const auto finalists = Race(&evaluator, Plan::Dense(4), contenders);
  ASSERT_TRUE(finalists.ok());
  EXPECT_EQ(finalists->front().index, expected);
  // All contenders look at one window, three of them at most at more; the dense plan was known.
  EXPECT_GE(evaluator.work().windows_measured, 8 + 8 * 1 + 7);
  EXPECT_LE(evaluator.work().windows_measured, 8 + 8 * 1 + 3 * 7);
}

// Windows tell of the whole as they do of real plans: the race must not drop the best for one unlucky window.
TEST(Race, AnUnluckyWindowDoesNotDecide) {
  const auto kl = [](const Plan& plan, int64_t window) {
    const double loss = 1 + 0.5 * plan.dropped().front().index;
    const bool best = plan.dropped().front().index == 0;
    return plan.dense() ? 0 : loss * (best && window == 0 ? 1.55 : 1);
  };
  FunctionEvaluator evaluator(4, 8,
                              [&](const Plan& plan, int64_t window) { return plan.dense() ? 0 : kl(plan, window); });
  ASSERT_TRUE(evaluator.Measure(Plan::Dense(4)).ok());
  std::vector<Contender> contenders;
  for (const Plan& plan : CandidatesOf(Plan::Dense(4)).plans) {
    contenders.push_back({plan, 100.0});
  }
  const auto finalists = Race(&evaluator, Plan::Dense(4), contenders);
  ASSERT_TRUE(finalists.ok());
  EXPECT_EQ(finalists->front().index, 0u);
}

TEST(Density, LongContextsMakeAttentionGoFirst) {
  const MemoryModel memory = ModelOfLayers(4);
  EXPECT_EQ(BytesFreed(memory, BlockId::Attention(1), 7), 100 + 70);
  EXPECT_EQ(BytesFreed(memory, BlockId::Ffn(1), 7), 300);
  const auto kl = [](const Plan& plan, int64_t) { return 1.0 * static_cast<double>(plan.dropped().size()); };
  for (const int64_t cells : {int64_t{1}, int64_t{1000}}) {
    FunctionEvaluator evaluator(4, 4, kl);
    const auto ranking = RankByDensity(&evaluator, memory, cells);
    ASSERT_TRUE(ranking.ok());
    ASSERT_EQ(ranking->drop_order.size(), 8);
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(ranking->drop_order[i].is_attention(), cells == 1000);
    }
  }
}

TEST(Density, CellsCoverTheRangeOfRatiosEvenly) {
  const MemoryModel memory = ModelOfLayers(4);  // 2600 bytes of weights, 40 bytes per cell over all layers
  const auto cells = SpreadOfCells(memory, 3);
  EXPECT_EQ(cells, (std::vector<int64_t>{3, 29, 260}));
}

TEST(Rankings, OfInfluence) {
  DenseStatistics statistics;
  statistics.layer_influence = {0.5, 0.1, 0.3};
  statistics.block_influence = {0.4, 0.2, 0.05, 0.3, 0.1, 0.01};
  const auto names = [](const Ranking& ranking) {
    std::string text;
    for (const BlockId block : ranking.drop_order) {
      text += BlockName(block) + " ";
    }
    return text;
  };
  EXPECT_EQ(names(RankByLayerInfluence(statistics)), "a1 f1 a2 f2 a0 f0 ");
  EXPECT_EQ(names(RankAttentionFirst(statistics)), "a1 a2 a0 f2 f0 f1 ");
  EXPECT_EQ(names(RankFfnFirst(statistics)), "f2 f0 f1 a1 a2 a0 ");
  FunctionEvaluator evaluator(3, 2, [](const Plan& plan, int64_t) { return 6.0 - plan.dropped()[0].index; });
  const auto one_shot = RankByOneShot(&evaluator);
  ASSERT_TRUE(one_shot.ok());
  EXPECT_EQ(names(*one_shot), "f2 a2 f1 a1 f0 a0 ");
}

TEST(Rankings, RandomOrdersAreThoseOfTheirSeed) {
  const Ranking first = RankAtRandom(8, 1);
  EXPECT_EQ(first, RankAtRandom(8, 1));
  EXPECT_NE(first.drop_order, RankAtRandom(8, 2).drop_order);
  auto sorted = first.drop_order;
  std::sort(sorted.begin(), sorted.end());
  for (int b = 0; b < 16; ++b) {
    EXPECT_EQ(sorted[static_cast<size_t>(b)], BlockId{b});
  }
}

}  // namespace
}  // namespace espalier
