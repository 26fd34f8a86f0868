// The policy for a model about which nothing has been measured.
#pragma once

#include "policy/policy.h"

namespace espalier {

// Drops blocks by their place alone. The first layers turn token embeddings into something the rest can use, and the
// last turn it into a prediction: a model rarely survives without them. In between, layers change the residual stream
// least at about two thirds of the depth. So: from there outwards, attention before FFN at the same distance; the last
// layer and the first two go when nothing else is left.
class DataFreePolicy final : public Policy {
 public:
  const char* name() const override { return "data-free"; }
  Result<Decision> Decide(const Observation& observation) const override;
  std::vector<BlockId> DropOrder(int n_layer) const override;
};

}  // namespace espalier
