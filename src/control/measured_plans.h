// Measuring many plans on one text with the least work, and what the measurements say.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/status.h"
#include "control/window_bootstrap.h"
#include "eval/plan_evaluator.h"
#include "model/plan.h"
#include "profile/archive.h"

namespace espalier {

// Measures those of `plans` that are not known yet, each once, in an order in which neighbours share their first
// blocks: the evaluator keeps activations of the plans it ran last, so a block is computed about once for all plans
// that agree up to it. Returns how many plans were measured.
Result<int64_t> MeasurePlans(std::vector<Plan> plans, PlanEvaluator* evaluator,
                             const std::function<void(int64_t windows_done, int64_t windows)>& progress);

// Loss and perplexity of plans that `archive` has measured whole, with the bootstrap's resamples of the loss.
struct LossFigures {
  double loss = 0;
  double mean_nll = 0;
  std::vector<double> resampled;
};
// REQUIRES: `plan` is the dense plan (whose loss is 0 and whose nll is `dense_nll`), or known whole.
LossFigures FiguresOf(const Plan& plan, const Archive& archive, double dense_nll, const WindowBootstrap& bootstrap);

}  // namespace espalier
