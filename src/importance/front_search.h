// Local search around the fronts: what greedy chains cannot find, since the best plan with k blocks dropped is not part
// of the best plan with k + 1 dropped.
//
// From every plan on a front its neighbours are tried: one dropped block swapped for a kept one of the same kind, one
// block dropped, one returned. A cheap predictor says which first, an eighth of the windows decides whether a neighbour
// is worth half of them, and half whether it is measured whole. Whatever enters a front is searched from in turn. When
// the fronts have no neighbours left to try, the search goes on from the plans just behind them, further and further
// back: better plans often lie two steps from a front, over a plan that is a little worse.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/status.h"
#include "eval/plan_evaluator.h"
#include "model/footprint.h"

namespace espalier {

struct FrontSearchOptions {
  std::vector<int64_t> kv_cells;  // workloads whose fronts matter
  int neighbours_at_once = 8;     // per plan and visit
  double predicted_ratio = 2;     // neighbours predicted worse than this times the loss to beat are never measured
  // Of the loss to beat, scaled to the windows seen: above it, abandon. The second tier's plans come from what passes.
  double ratio_after_eighth = 1.25;
  double ratio_after_half = 1.1;
  // Plans of up to these multiples of the loss to beat are searched from, one tier after the other.
  std::vector<double> tiers = {1, 1.15, 1.4, 2};
};

struct FrontSearchResult {
  int64_t tried = 0;       // neighbours looked at
  int64_t improved = 0;    // that entered a front
  bool exhausted = false;  // nothing left to try
};

// Searches until `time_is_up` says so (asked before every neighbour) or nothing is left. The archive holds the results.
Result<FrontSearchResult> SearchFronts(PlanEvaluator* evaluator, const MemoryModel& memory,
                                       const FrontSearchOptions& options,
                                       const std::function<bool(const FrontSearchResult&)>& time_is_up);

}  // namespace espalier
