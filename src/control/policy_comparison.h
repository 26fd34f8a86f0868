// Every policy in every cell (scenario x budget), with the same bytes and on the same text: what it chose, what that
// costs in loss, and how far it is from the best plan that anybody knows for the cell.
//
// Best known: of all plans measured on this text that fit the cell (every policy's plans in every cell, the archive's
// most promising candidates, and whatever the archive had of this text before), the one with the least loss. It is
// chosen on the very text it is judged by, which favours it a little: ratios err on the side of the policies' harm.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "control/policy_choices.h"
#include "control/window_bootstrap.h"
#include "eval/plan_evaluator.h"
#include "profile/profile.h"

namespace espalier {

struct ComparisonOptions {
  // For each cell so many plans that fit are measured besides: those with the least loss in the calibration archive.
  // Without them the best known would be what policies happened to choose. 0: none.
  int candidates = 3;
  int timing_calls = 50;  // of each policy in each cell
  int resamples = 2000;   // of the bootstrap
  uint64_t seed = 1;      // likewise
  std::function<void(int64_t windows_done, int64_t windows)> progress;
};

// One policy in one cell.
struct PolicyResult {
  Choice choice;
  // Where it did not refuse; of `random` the means over its orders (of perplexity the geometric one).
  uint64_t peak_bytes = 0;  // managed
  Interval loss;
  double perplexity = 0;
  // Over the cell's best known plan; empty where the dense plan fits, nothing is known, or the policy refused.
  std::optional<Interval> ratio;

  bool refused() const { return choice.decisions.empty(); }
};

struct BestKnown {
  Plan plan;
  uint64_t peak_bytes = 0;
  Interval loss;
};

struct CellResult {
  Cell cell;
  std::vector<PolicyResult> policies;  // in the order of PolicyComparison::policies
  std::optional<BestKnown> best;       // empty where no measured plan fits
};

// Of loss over best known, over `cells` cells.
struct GeometricMean {
  int cells = 0;
  Interval ratio;  // where cells > 0
};

// One instance of a policy that takes part with several: an order, an agent.
struct SeedSummary {
  uint64_t seed = 0;
  GeometricMean all;
};

struct PolicySummary {
  std::string name;
  GeometricMean all;
  std::vector<SeedSummary> seeds;        // each alone
  std::vector<GeometricMean> by_budget;  // in the order of PolicyComparison::budgets
  // Of loss over the loss of `table` in the same cells; empty without `table`.
  std::optional<Interval> to_table;
  int refusals = 0;  // cells
  double decision_median_ms = 0;
  double decision_p99_ms = 0;
};

struct PlanPoint {
  Plan plan;
  uint64_t peak_bytes = 0;
  double loss = 0;
};

struct PolicyComparison {
  MeasurementSet set;
  double dense_perplexity = 0;
  std::vector<ScenarioMemory> scenarios;
  std::vector<std::vector<PlanPoint>> fronts;  // by scenario: no measured plan is better in both; bytes ascending
  std::vector<Budget> budgets;                 // every one that occurs, in order of appearance
  std::vector<CellResult> cells;
  std::vector<PolicySummary> policies;
  std::vector<std::string> missing;  // policies that the profile cannot serve, and why
  int cells_where_dense_fits = 0;    // left out of every ratio: their loss is 0
  int64_t plans_measured = 0;        // on this text now; the rest was known
  int64_t plans_known = 0;           // on this text, in all

  // Index of the policy with the least geometric mean, of those that refuse in the fewest cells; empty without ratios.
  std::optional<size_t> winner;
};

// `calibration`: where candidates come from; nullptr: none. It is not looked at any more when measuring begins: it may
// belong to the profile that `evaluator` adds to.
// Errors are the evaluator's; a policy that refuses is a result.
Result<PolicyComparison> ComparePolicies(Lineup lineup, const Archive* calibration,
                                         std::vector<ScenarioMemory> scenarios, PlanEvaluator* evaluator,
                                         const ComparisonOptions& options);

}  // namespace espalier
