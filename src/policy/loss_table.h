// What a profile knows about the loss of plans, in a form that a decision can scan in microseconds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "model/plan.h"
#include "policy/policy.h"
#include "profile/archive.h"

namespace espalier {

// The measured plans of one archive, the smallest loss first; of equal losses the plan that drops fewer blocks, then
// the one that keeps earlier blocks. A plan is a set of bits, one for each block kept: 10 000 plans of 64 blocks are
// 80 kB and stay in the cache.
//
// Cost: a scan of 10 000 rows takes 0.1 ms at 64 blocks. The bytes of a row are sums over its blocks; they are looked
// up eight blocks at a time in a table that each scan makes for its observation (adding block by block takes five
// times as long).
//
// Thread rule: const calls from any thread.
class LossTable {
 public:
  // The whole rows of `archive` (nullptr: none) that keep blocks whole or drop them, and the dense plan, whose loss is
  // 0 by definition. Copies what it needs.
  LossTable(const Archive* archive, int n_layer);

  // Plans known, the dense one included.
  size_t size() const { return losses_.size(); }

  // What is known about `plan`: its measured loss, or the smallest among measured plans that keep no block that it
  // drops; empty if there is none. REQUIRES: a plan of this model.
  std::optional<PredictedLoss> Predict(const Plan& plan) const;

  // The plan of the smallest loss whose footprint fits; empty if none does.
  // REQUIRES: the observation is of this model.
  std::optional<Decision> BestThatFits(const Observation& observation) const;

  // The smallest limit under which a plan fits whose measured loss is at most `max_loss`. REQUIRES: max_loss >= 0.
  uint64_t SmallestLimit(const Observation& observation, double max_loss) const;

 private:
  const uint64_t* kept(size_t row) const { return kept_.data() + row * n_words_; }
  Plan PlanOf(size_t row) const;
  // The first row whose plan is that of these bits.
  std::optional<size_t> Find(std::span<const uint64_t> bits) const;

  int n_layer_ = 0;
  size_t n_words_ = 0;
  std::vector<double> losses_;     // ascending
  std::vector<uint64_t> kept_;     // [row][n_words]: bit i % 64 of word i / 64 is block i
  std::vector<uint32_t> by_plan_;  // rows in the order of their bits, of equal ones the first row first
};

}  // namespace espalier
