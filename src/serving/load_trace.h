// A load trace: when requests come, how long they are, and what memory there is meanwhile. What `espalier replay`
// plays.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "memory/budget.h"

namespace espalier {

// Bounds of what a trace may ask for: far above any use, low enough that sums of them cannot overflow.
inline constexpr double kMaxTraceSeconds = 30.0 * 24 * 3600;
inline constexpr int64_t kMaxTraceTokens = int64_t{1} << 24;  // of one prompt, and of one answer
inline constexpr size_t kMaxTraceItems = size_t{1} << 20;     // arrivals, and budget steps
inline constexpr size_t kMaxTraceNameBytes = 128;

// A request that comes.
struct Arrival {
  double seconds = 0;  // since the trace began
  int64_t prompt_tokens = 1;
  int64_t max_tokens = 1;
  uint64_t prompt_seed = 0;          // arrivals of the same seed and lengths have the same prompt
  int64_t shared_prefix_tokens = 0;  // of the prompt: the first ones, which all arrivals that share have in common

  friend bool operator==(const Arrival&, const Arrival&) = default;
};

// From here on this is the memory there is.
struct BudgetStep {
  double seconds = 0;
  Budget budget = Budget::Percent(100);

  friend bool operator==(const BudgetStep&, const BudgetStep&) = default;
};

struct LoadTrace {
  std::string name = {};
  uint64_t seed = 0;            // of shared prefixes, and of what made the trace
  double duration_seconds = 0;  // nothing comes later; the budget stays as it was last
  std::vector<Arrival> arrivals = {};
  std::vector<BudgetStep> budgets = {};  // before the first one the budget is the command's

  friend bool operator==(const LoadTrace&, const LoadTrace&) = default;
};

// By time; items of the same moment stay in their order.
void SortTrace(LoadTrace* trace);

// kInvalidArgument, naming the field, what is expected and what was found, unless it is in range. `duration` is that of
// the trace.
Status CheckArrival(const Arrival& arrival, double duration);
Status CheckMoment(double seconds, double duration);
Status CheckDuration(double seconds);
// The same over all of it, and sorted as SortTrace does. A trace without arrivals is legal: it moves the budget only.
Status CheckTrace(const LoadTrace& trace);

}  // namespace espalier
