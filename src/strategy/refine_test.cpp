#include "strategy/refine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace espalier {
namespace {

constexpr int kLayers = 4;

// A price for each block.
double Price(BlockId block) { return 0.1 * (1 + (block.index * 5) % 8); }

LossSurrogate AdditiveSurrogate() {
  MeasurementSet set;
  set.n_windows = 1;
  set.tokens_scored = 10;
  Archive archive(set);
  for (unsigned mask = 1; mask < 1U << (2 * kLayers); ++mask) {
    Plan plan = Plan::Dense(kLayers);
    double loss = 0;
    for (int b = 0; b < 2 * kLayers; ++b) {
      if ((mask >> b & 1) != 0) {
        plan.Drop({b});
        loss += Price({b});
      }
    }
    const WindowLoss window = {10 * loss, 30};
    archive.Add(plan, 0, {&window, 1});
  }
  auto surrogate = LossSurrogate::Fit(archive, kLayers);
  EXPECT_TRUE(surrogate.ok());
  return std::move(*surrogate);
}

// FFN blocks take three times what attention blocks do.
uint64_t Bytes(const Plan& plan) {
  const int blocks = plan.kept_attention() + 3 * plan.kept_ffn();
  return blocks == 0 ? kNoSuchPlan : static_cast<uint64_t>(10 * blocks);
}

double LossOf(const Plan& plan) {
  double loss = 0;
  for (const BlockId block : plan.dropped()) {
    loss += Price(block);
  }
  return loss;
}

TEST(Refine, WhatASurrogateKnowsIsFoundFromTheWorstPlanThatFits) {
  const LossSurrogate surrogate = AdditiveSurrogate();
  std::vector<BlockId> worst_first;
  for (int b = 0; b < 2 * kLayers; ++b) {
    worst_first.push_back({b});
  }
  std::sort(worst_first.begin(), worst_first.end(), [](BlockId a, BlockId b) { return Price(a) > Price(b); });
  int better = 0;
  int close = 0;
  for (uint64_t limit = 10; limit <= 150; limit += 10) {
    const Plan start = *DropUntilItTakes(Bytes, limit, worst_first);
    const Plan refined = Refine(surrogate, Bytes, limit, worst_first, start, /*most_steps=*/20);
    EXPECT_LE(Bytes(refined), limit);
    for (const BlockId block : refined.dropped()) {
      Plan larger = refined;
      larger.Restore(block);
      EXPECT_GT(Bytes(larger), limit);
    }
    EXPECT_LE(LossOf(refined), LossOf(start) + 1e-9);
    better += LossOf(refined) < LossOf(start) - 1e-9 ? 1 : 0;
    double least = LossOf(start);
    for (unsigned mask = 0; mask < 1U << (2 * kLayers); ++mask) {
      Plan plan = Plan::Dense(kLayers);
      for (int b = 0; b < 2 * kLayers; ++b) {
        if ((mask >> b & 1) != 0) {
          plan.Drop({b});
        }
      }
      least = Bytes(plan) <= limit ? std::min(least, LossOf(plan)) : least;
    }
    // An exchange at a time does not always get there, but nearly.
    EXPECT_LE(LossOf(refined), 1.25 * least + 0.02) << limit;
    close += LossOf(refined) <= 1.02 * least + 0.02 ? 1 : 0;
  }
  EXPECT_GE(better, 10);
  EXPECT_GE(close, 10);
}

TEST(Refine, StepsAreLimited) {
  const LossSurrogate surrogate = AdditiveSurrogate();
  const std::vector<BlockId> order = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}};
  const Plan start = *DropUntilItTakes(Bytes, 80, order);
  EXPECT_EQ(Refine(surrogate, Bytes, 80, order, start, 0), start);
}

}  // namespace
}  // namespace espalier
