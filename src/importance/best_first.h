// The candidate with the least loss, found without measuring the others to their end, and proved all the same.
//
// A window's KL is never negative, and a lower bound of it costs little more than the plan's blocks, without the output
// head (PlanEvaluator::BoundWindow). So a candidate's total has a lower bound at any time: 0 for windows not looked at,
// the bound for those that have one, the KL for those measured. Always the candidate with the lowest bound is taken
// further: first to bounds of all its windows, then, window by window, to their KL. The first whose last window is
// measured has a total that is not above anybody's bound: uniform-cost search, in which every step taken belongs to a
// candidate whose bound was below the winner's total.
#pragma once

#include <cstdint>
#include <span>

#include "base/status.h"
#include "eval/plan_evaluator.h"
#include "model/plan.h"

namespace espalier {

struct LeastLoss {
  size_t index = 0;  // of equal candidates the first, as a loop over all of them would find
  double kl = 0;     // summed over all windows
};

// `base`: a plan like the candidates. Windows in which it is known to lose most are bounded first: there the candidates
// lose most too, and are found out sooner. REQUIRES: candidates not empty.
Result<LeastLoss> FindLeastLoss(PlanEvaluator* evaluator, const Plan& base, std::span<const Plan> candidates);

}  // namespace espalier
