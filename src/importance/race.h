// Which of many plans costs least, by a race: all run a few windows, the better part runs on. For choices that need not
// be proved (importance/best_first.h proves its choice, at a higher price where losses are nearly equal).
//
// Plans are compared with a plan that is known, on the same windows: the difference between two plans varies far less
// from window to window than the losses themselves.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "eval/plan_evaluator.h"
#include "model/plan.h"

namespace espalier {

struct Contender {
  Plan plan;
  double bytes = 1;  // what the rise in loss is divided by
};

struct Finalist {
  size_t index = 0;
  double key = 0;  // (loss sum of the contender - loss sum of the base) / bytes
};

// Contenders that were measured whole, best first; at least one. Windows: an eighth, a quarter, a half, all of them;
// after each stage those go on that would be the best if their windows had been as unlucky as windows can well be (two
// standard deviations, as measured on the reference models), at most a third of all and three.
// REQUIRES: `base` is measured whole, contenders not empty.
Result<std::vector<Finalist>> Race(PlanEvaluator* evaluator, const Plan& base, std::span<const Contender> contenders);

// Sum of KL over the first `windows` windows of a plan, measured as far as needed.
Result<double> MeasureFirst(PlanEvaluator* evaluator, const Plan& plan, int64_t windows);

}  // namespace espalier
