// Running a plan over one window with a block runner.
#pragma once

#include <span>

#include "base/status.h"
#include "model/block_means.h"
#include "model/plan.h"
#include "runtime/block_runner.h"

namespace espalier {

struct PlanRun {
  const Plan& plan;
  const BlockMeans* means = nullptr;  // what dropped blocks add; nullptr: nothing
  int first = 0;                      // blocks [first, last)
  int last = 0;
};

// Runs the blocks over `hidden` ([n_tokens][n_embd]) in place. Adds the work to `flops`.
Status RunPlan(BlockRunner* runner, const PlanRun& run, std::span<float> hidden, double* flops);

}  // namespace espalier
