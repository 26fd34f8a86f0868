#include "importance/best_first.h"

#include <gtest/gtest.h>

#include <random>

#include "importance/candidates.h"
#include "importance/fake_evaluator_for_test.h"
#include "importance/gsi.h"

namespace espalier {
namespace {

using test::FunctionEvaluator;

const Plan kDense = Plan::Dense(4);

// A loss in which blocks interact, by plan and window, the same on every call.
double RoughKl(const Plan& plan, int64_t window, uint32_t seed) {
  uint32_t hash = 2166136261U ^ seed;
  double sum = 0;
  for (int b = 0; b < plan.n_block(); ++b) {
    hash = (hash ^ (plan.kept({b}) ? 1U : 0U)) * 16777619U;
    sum += plan.kept({b}) ? 0 : 0.2 + 0.1 * ((b * 7 + static_cast<int>(window)) % 5);
  }
  return sum * (0.5 + static_cast<double>(hash >> 8 & 0xFF) / 256);
}

size_t NaiveLeast(const FunctionEvaluator::Kl& kl, int64_t n_windows, const std::vector<Plan>& plans, double* sum) {
  size_t best = 0;
  double least = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < plans.size(); ++i) {
    double total = 0;
    for (int64_t window = 0; window < n_windows; ++window) {
      total += kl(plans[i], window);
    }
    if (total < least) {
      least = total;
      best = i;
    }
  }
  *sum = least;
  return best;
}

TEST(FindLeastLoss, FindsWhatALoopOverAllCandidatesFinds) {
  for (uint32_t seed = 0; seed < 50; ++seed) {
    const FunctionEvaluator::Kl kl = [seed](const Plan& plan, int64_t window) { return RoughKl(plan, window, seed); };
    const auto plans = CandidatesOf(Plan::Dense(4)).plans;
    double sum = 0;
    const size_t expected = NaiveLeast(kl, 6, plans, &sum);
    for (const double bound_share : {0.0, 0.85, 1.0}) {
      FunctionEvaluator evaluator(4, 6, kl);
      evaluator.bound_share = bound_share;
      const auto found = FindLeastLoss(&evaluator, kDense, plans);
      ASSERT_TRUE(found.ok());
      EXPECT_EQ(found->index, expected);
      EXPECT_EQ(found->kl, sum);
    }
  }
}

TEST(FindLeastLoss, MeasuresNoWindowThatTheProofDoesNotNeed) {
  // Candidate b costs b + 1 in each of 8 windows: the winner's total is 8, the others stop as soon as they exceed it.
  FunctionEvaluator evaluator(4, 8, [](const Plan& plan, int64_t) { return plan.dropped()[0].index + 1.0; });
  const auto found = FindLeastLoss(&evaluator, kDense, CandidatesOf(Plan::Dense(4)).plans);
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->index, 0);
  int64_t needed = 8;
  for (int cost = 2; cost <= 8; ++cost) {
    needed += 8 / cost + (8 % cost == 0 ? 0 : 1);  // bounds up to 8 - cost are extended; one equal to 8 is not
  }
  EXPECT_EQ(evaluator.work().windows_measured, needed);
}

TEST(FindLeastLoss, WhoseBoundIsAboveTheLeastIsNotMeasured) {
  // Candidate b costs b + 1 in each of 8 windows; bounds are 0.9 of that: only the winner is measured.
  FunctionEvaluator evaluator(4, 8, [](const Plan& plan, int64_t) { return plan.dropped()[0].index + 1.0; });
  evaluator.bound_share = 0.9;
  const auto found = FindLeastLoss(&evaluator, kDense, CandidatesOf(Plan::Dense(4)).plans);
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->index, 0);
  EXPECT_EQ(evaluator.work().windows_measured, 8);
  // The winner's 8 bounds; of the others as many as stay within its total of 8, and one that does not.
  int64_t bounded = 8;
  for (int cost = 2; cost <= 8; ++cost) {
    bounded += static_cast<int64_t>(8 / (0.9 * cost)) + 1;
  }
  EXPECT_EQ(evaluator.work().windows_bounded, bounded);
}

TEST(FindLeastLoss, TheFirstOfEqualCandidatesWins) {
  FunctionEvaluator evaluator(3, 4, [](const Plan&, int64_t) { return 1.0; });
  const auto found = FindLeastLoss(&evaluator, kDense, CandidatesOf(Plan::Dense(3)).plans);
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->index, 0);
}

TEST(FindLeastLoss, BoundsFirstTheWindowsInWhichTheBaseLosesMost) {
  // A tenth of each total lies in the first seven windows, the rest in the last.
  const FunctionEvaluator::Kl kl = [](const Plan& plan, int64_t window) {
    const double total = plan.dropped().empty() ? 1 : plan.dropped().back().index + 1.0;
    return window == 7 ? 0.9 * total : total / 70;
  };
  const auto plans = CandidatesOf(*Plan::ParseDrop("a0", 4)).plans;
  int64_t bounded[2] = {};
  for (const bool known : {false, true}) {
    FunctionEvaluator evaluator(4, 8, kl);
    evaluator.bound_share = 1;
    if (known) {
      ASSERT_TRUE(evaluator.Measure(*Plan::ParseDrop("a0", 4)).ok());
    }
    const auto found = FindLeastLoss(&evaluator, *Plan::ParseDrop("a0", 4), plans);
    ASSERT_TRUE(found.ok());
    EXPECT_EQ(found->index, 0);
    bounded[known ? 1 : 0] = evaluator.work().windows_bounded;
  }
  EXPECT_EQ(bounded[0], 7 * 8) << "all seven, to the last window";
  EXPECT_LT(bounded[1], bounded[0] / 2);
}

TEST(RankByGsi, IsTheNaiveLoop) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const FunctionEvaluator::Kl kl = [seed](const Plan& plan, int64_t window) { return RoughKl(plan, window, seed); };
    FunctionEvaluator evaluator(5, 4, kl);
    const auto gsi = RankByGsi(&evaluator);
    ASSERT_TRUE(gsi.ok());
    Plan base = Plan::Dense(5);
    double naive_flops = 0;
    for (const BlockId dropped : gsi->ranking.drop_order) {
      const DropCandidates candidates = CandidatesOf(base);
      double sum = 0;
      const size_t best = NaiveLeast(kl, 4, candidates.plans, &sum);
      ASSERT_EQ(dropped, candidates.blocks[best]);
      EXPECT_DOUBLE_EQ(gsi->ranking.score[static_cast<size_t>(dropped.index)], sum / 40);
      naive_flops += 4 * static_cast<double>(candidates.plans.size()) * static_cast<double>(candidates.plans.size());
      base.Drop(dropped);
    }
    EXPECT_EQ(gsi->ranking.drop_order.size(), 10);
    EXPECT_EQ(gsi->naive_flops, naive_flops);
  }
}

TEST(RankByGsi, AskedAgainItMeasuresNothing) {
  FunctionEvaluator evaluator(4, 4, [](const Plan& plan, int64_t window) { return RoughKl(plan, window, 3); });
  const auto first = RankByGsi(&evaluator);
  const int64_t measured = evaluator.work().windows_measured;
  const auto second = RankByGsi(&evaluator);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->ranking, second->ranking);
  EXPECT_EQ(evaluator.work().windows_measured, measured);
}

TEST(RankByGsi, KnownRoundsAreRecalledAndThereCanBeEnough) {
  const FunctionEvaluator::Kl kl = [](const Plan& plan, int64_t window) { return RoughKl(plan, window, 3); };
  FunctionEvaluator whole(4, 4, kl);
  const auto expected = RankByGsi(&whole);
  FunctionEvaluator part(4, 4, kl);
  int rounds = 0;
  const auto begun = RankByGsi(&part, [&](int, double) { ++rounds; }, {.enough = [&] { return rounds == 3; }});
  ASSERT_TRUE(expected.ok() && begun.ok());
  const auto& order = expected->ranking.drop_order;
  ASSERT_EQ(begun->ranking.drop_order, std::vector<BlockId>(order.begin(), order.begin() + 3));
  // Three rounds are recalled: no candidate but theirs is looked at.
  const EvaluatorWork before = part.work();
  rounds = 0;
  const auto again = RankByGsi(&part, [&](int, double) { ++rounds; },
                               {.known = begun->ranking.drop_order, .enough = [&] { return rounds == 3; }});
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->ranking, begun->ranking);
  EXPECT_EQ(part.work().windows_measured, before.windows_measured);
  EXPECT_EQ(part.work().windows_bounded, before.windows_bounded);
  const auto rest = RankByGsi(&part, {}, {.known = begun->ranking.drop_order});
  ASSERT_TRUE(rest.ok());
  EXPECT_EQ(rest->ranking, expected->ranking);
}

}  // namespace
}  // namespace espalier
