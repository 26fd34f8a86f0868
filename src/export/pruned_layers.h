// Which layers a pruned model has: the kept blocks, in order of execution, put together two by two.
#pragma once

#include <optional>
#include <vector>

#include "model/plan.h"

namespace espalier {

// One layer of the model that is written. A half without a block of the source is empty: a layer without attention, or
// one whose FFN adds nothing.
struct PrunedLayer {
  std::optional<BlockId> attention;
  std::optional<BlockId> ffn;

  bool complete() const { return attention && ffn; }
  friend bool operator==(const PrunedLayer&, const PrunedLayer&) = default;
};

// An attention block and the FFN block that comes next of what is kept are one layer, whatever layers they came from: a
// block computes the same wherever it stands. REQUIRES: plan.whole_blocks_only().
std::vector<PrunedLayer> PairBlocks(const Plan& plan);

}  // namespace espalier
