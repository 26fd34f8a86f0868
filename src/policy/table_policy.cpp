#include "policy/table_policy.h"

#include "base/check.h"

namespace espalier {

Result<Decision> TablePolicy::Decide(const Observation& observation) const {
  if (auto best = table_->BestThatFits(observation)) {
    return std::move(*best);
  }
  return DropUntilItFits(observation, fallback_order_);
}

std::vector<BlockId> TablePolicy::DropOrder(int n_layer) const {
  ESPALIER_CHECK(fallback_order_.size() == 2 * static_cast<size_t>(n_layer));
  return fallback_order_;
}

}  // namespace espalier
