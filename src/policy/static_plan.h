// The policy that has been told what to do.
#pragma once

#include <utility>

#include "policy/policy.h"

namespace espalier {

// Always the given plan. kOutOfBudget, with the plan's bytes, where the plan does not fit: a plan that somebody wrote
// down is not changed behind their back.
class StaticPolicy final : public Policy {
 public:
  explicit StaticPolicy(Plan plan) : plan_(std::move(plan)) {}
  const char* name() const override { return "static"; }
  // REQUIRES: the plan belongs to the observed model.
  Result<Decision> Decide(const Observation& observation) const override;
  std::vector<BlockId> DropOrder(int n_layer) const override;

 private:
  Plan plan_;
};

}  // namespace espalier
