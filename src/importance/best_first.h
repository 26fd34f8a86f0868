// The candidate with the least loss, found without measuring the others to their end, and proved all the same.
//
// A window's KL is never negative, so what a candidate's first windows add up to is a lower bound of its total. Always
// the candidate with the lowest bound is measured one window further; the first whose last window is done has a total
// that is not above anybody's bound. No order of measurement that proves the same result from these bounds measures
// fewer windows (the argument of uniform-cost search): every window measured lies below the winner's total.
#pragma once

#include <cstdint>
#include <limits>
#include <span>

#include "base/status.h"
#include "eval/plan_evaluator.h"
#include "model/plan.h"

namespace espalier {

struct LeastLoss {
  size_t index = 0;  // of equal candidates the first, as a loop over all of them would find
  double kl = 0;     // summed over all windows
};

// `upper_bound`: candidates whose bound exceeds it are of no interest; if none stays within, index is
// candidates.size(). REQUIRES: candidates not empty.
Result<LeastLoss> FindLeastLoss(PlanEvaluator* evaluator, std::span<const Plan> candidates,
                                double upper_bound = std::numeric_limits<double>::infinity());

}  // namespace espalier
