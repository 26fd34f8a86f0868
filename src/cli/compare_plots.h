// The plots of espalier compare's page, each an SVG element.
#pragma once

#include <string>
#include <vector>

#include "cli/compare_report.h"

namespace espalier {

// Loss (logarithmic) over bytes at one scenario: the front of all measured plans, every policy's plans at its budgets,
// and `ladder`'s dense rungs where their losses are measured against the same model.
std::string LossPlot(const CompareReport& report, size_t scenario);

// Loss (logarithmic) against the ladder's source over bytes, at one of the ladder's workloads: dense rungs, each rung
// pruned to the bytes of the next, and the compared model's pruned plans.
std::string LadderPlot(const Ladder& ladder, size_t workload);

// Geometric mean of loss over best known, with intervals: a row for each policy. `budget`: index into
// PolicyComparison::budgets; -1: all cells.
std::string RatioPlot(const PolicyComparison& comparison, int budget);

// Which blocks `policy` keeps at `budget` (index): a row for each layer, and for each of `scenarios` a column of
// attention and one of FFN. Empty if none of them has the budget.
std::string BlockPlot(const PolicyComparison& comparison, size_t policy, size_t budget,
                      const std::vector<size_t>& scenarios);

// The class of a policy's colour, and the marker that goes with it.
std::string PolicyStyle(size_t policy);

// The marker alone, for legends.
std::string LegendMarker(size_t policy);

}  // namespace espalier
