// Search around the fronts: what greedy chains cannot find, since the best plan with k blocks dropped is not part of
// the best plan with k + 1 dropped.
//
// A surrogate that is fitted to the archive (surrogate/loss_surrogate.h) guesses the loss of every plan a few steps
// from a front (of every plan there is, where blocks are few). The plans that are expected to add most to the fronts
// are measured: an eighth of the windows first, then a quarter, a half, all of them, as long as what was seen, together
// with the guess, leaves hope. What was measured whole joins the archive and the surrogate, and the next plans are
// chosen. Nothing is given up for good: plans that were seen in part wait with a better guess than before. Between
// them, neighbours of the fronts have their turn whatever the surrogate thinks of them: it is surer of itself than it
// should be where blocks interact in ways that the archive does not show yet.
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
  int plans_at_once = 6;          // measured between two looks at the surrogate
  int neighbours_at_once = 2;     // of the fronts, never looked at; measured after them
  // A plan is hoped to lose what is guessed less so many standard deviations. Where no plan is worth a try, the next.
  std::vector<double> optimism = {0.5, 1, 2, 4, 8};
};

struct FrontSearchResult {
  int64_t tried = 0;       // plans looked at
  int64_t improved = 0;    // that entered a front
  bool exhausted = false;  // nothing left that is worth a try
};

// Searches until `time_is_up` says so (asked before every plan) or nothing is left. The archive holds the results.
// kInvalidArgument if fewer plans were measured whole than the surrogate needs: twice the layers.
Result<FrontSearchResult> SearchFronts(PlanEvaluator* evaluator, const MemoryModel& memory,
                                       const FrontSearchOptions& options,
                                       const std::function<bool(const FrontSearchResult&)>& time_is_up);

}  // namespace espalier
