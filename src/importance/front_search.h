// Local search around the fronts: what greedy chains cannot find, since the best plan with k blocks dropped is not part
// of the best plan with k + 1 dropped.
//
// From every plan on a front its neighbours are tried: one dropped block swapped for a kept one of the same kind, one
// block dropped, one returned. A cheap predictor says which first, an eighth of the windows decides whether a neighbour
// is worth half of them, and half whether it is measured whole. Whatever enters a front is searched from in turn.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/status.h"
#include "eval/plan_evaluator.h"
#include "model/footprint.h"

namespace espalier {

struct FrontSearchOptions {
  std::vector<int64_t> kv_cells;    // workloads whose fronts matter
  int neighbours_at_once = 8;       // per plan and visit
  double predicted_ratio = 2;       // neighbours predicted worse than this times the loss to beat are never measured
  double ratio_after_eighth = 1.1;  // of the loss to beat, on the same windows scaled: above it, abandon
  double ratio_after_half = 1.02;
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
