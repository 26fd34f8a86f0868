// The plans one step away from a plan.
#pragma once

#include <vector>

#include "model/plan.h"

namespace espalier {

// The plans with one block less: plans[i] lacks blocks[i], in order of execution.
struct DropCandidates {
  std::vector<BlockId> blocks;
  std::vector<Plan> plans;
};
DropCandidates CandidatesOf(const Plan& base);

// The plans in which one dropped block has returned for a kept one of the same kind: equal bytes where layers are
// alike.
std::vector<Plan> SwapsOf(const Plan& plan);

}  // namespace espalier
