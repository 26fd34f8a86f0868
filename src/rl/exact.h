// The exact optimum of the paper's additive reward, by dynamic programming: what an agent's gap to its own objective is
// measured against.
#pragma once

#include <span>
#include <vector>

#include "base/status.h"
#include "policy/policy.h"

namespace espalier {

struct BestEpisode {
  std::vector<BlockId> dropped;  // first to last; the plan without them fits
  double value = 0;              // the episode's return, discounted
};

// An episode pays, after every step, the sum of `values` over the blocks kept, until the plan fits. Blocks that take
// the same bytes are interchangeable for what fits; of those the ones of the least value go first (an exchange shows
// it: what goes earlier is missed in more steps). So what matters is how many of each sort are gone: with equal layers
// (attention gone, FFN gone), and where layers take different bytes one count for each sort.
// kUnsupported if there are more than ten million combinations of counts. kOutOfBudget if nothing fits.
// REQUIRES: one value for each block.
Result<BestEpisode> BestAdditiveEpisode(const Observation& task, std::span<const double> values, double gamma);

}  // namespace espalier
