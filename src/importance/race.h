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

// Contenders that were measured whole, best first; at least one. Windows: an eighth for all, a half for the best third,
// all for the best twelfth (two at least). REQUIRES: `base` is measured whole, contenders not empty.
Result<std::vector<Finalist>> Race(PlanEvaluator* evaluator, const Plan& base, std::span<const Contender> contenders);

// The windows that a plan's first look takes: an eighth of them.
int64_t ScreeningWindows(const PlanEvaluator& evaluator);

// Sum of KL over the first `windows` windows of a plan, measured as far as needed.
Result<double> MeasureFirst(PlanEvaluator* evaluator, const Plan& plan, int64_t windows);

}  // namespace espalier
