#include "export/pruned_layers.h"

#include "base/check.h"

namespace espalier {

std::vector<PrunedLayer> PairBlocks(const Plan& plan) {
  ESPALIER_CHECK(plan.whole_blocks_only());
  std::vector<PrunedLayer> layers;
  for (int b = 0; b < plan.n_block(); ++b) {
    const BlockId block = {b};
    if (!plan.kept(block)) {
      continue;
    }
    if (block.is_attention()) {
      layers.push_back({block, std::nullopt});
    } else if (!layers.empty() && !layers.back().ffn) {
      layers.back().ffn = block;
    } else {
      layers.push_back({std::nullopt, block});
    }
  }
  return layers;
}

}  // namespace espalier
