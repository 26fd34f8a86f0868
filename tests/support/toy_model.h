// A model that is its losses and bytes alone, small enough that every plan of it can be looked at: for tests of what
// learns.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "importance/fake_evaluator_for_test.h"
#include "model/footprint.h"
#include "model/plan.h"

namespace espalier::test {

inline constexpr int kToyLayers = 5;
inline constexpr int kToyBlocks = 2 * kToyLayers;
// Each block has a price of its own and every pair of neighbours one together, some of them negative: no order of
// single blocks is right everywhere.
inline double ToyKl(const Plan& plan, int64_t window) {
  static const std::vector<double> prices = [] {
    std::mt19937_64 random(17);
    std::vector<double> drawn;
    for (int i = 0; i < 2 * kToyBlocks; ++i) {
      const double uniform = static_cast<double>(random() % 1000) / 1000;
      drawn.push_back(i < kToyBlocks ? 0.05 + 0.5 * uniform : 0.4 * (uniform - 0.4));
    }
    return drawn;
  }();
  double loss = 0;
  for (int b = 0; b < kToyBlocks; ++b) {
    if (plan.kept({b})) {
      continue;
    }
    loss += prices[static_cast<size_t>(b)];
    if (b + 1 < kToyBlocks && !plan.kept({b + 1})) {
      loss += std::max(prices[static_cast<size_t>(kToyBlocks + b)], -0.8 * prices[static_cast<size_t>(b)]);
    }
  }
  return FunctionEvaluator::kTokensPerWindow * loss * (1 + 0.1 * static_cast<double>(window));
}

inline MemoryModel ToyMemory() {
  MemoryModel memory;
  for (int il = 0; il < kToyLayers; ++il) {
    memory.block_bytes.push_back(100'000);
    memory.block_bytes.push_back(260'000);
  }
  memory.block_staging_bytes.assign(memory.block_bytes.size(), 0);
  memory.global_bytes = 400'000;
  memory.kv = {
      .key_bytes_per_cell = 64, .value_bytes_per_cell = 64, .n_planes = 2, .page_bytes = 1, .capacity = 1 << 20};
  return memory;
}

// Every plan but the dense one, with its loss; least loss first.
inline std::vector<std::pair<Plan, double>> AllToyPlans() {
  std::vector<std::pair<Plan, double>> plans;
  for (int bits = 1; bits < 1 << kToyBlocks; ++bits) {
    Plan plan = Plan::Dense(kToyLayers);
    for (int b = 0; b < kToyBlocks; ++b) {
      if ((bits >> b & 1) != 0) {
        plan.Drop({b});
      }
    }
    plans.push_back({plan, ToyKl(plan, 0) / FunctionEvaluator::kTokensPerWindow});
  }
  std::stable_sort(plans.begin(), plans.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return plans;
}

}  // namespace espalier::test
