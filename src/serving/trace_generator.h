// Load traces made up from a seed. The same options give the same trace everywhere: times are rounded to milliseconds,
// percentages to hundredths, so that the last digit of a machine's logarithm is not in them.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/status.h"
#include "serving/load_trace.h"

namespace espalier {

enum class ArrivalKind {
  kNone,     // nobody comes
  kSteady,   // Poisson, one rate
  kDiurnal,  // Poisson, a rate that swings between 0.2 and 1.8 times the mean, lowest at first
  kBursty,   // Poisson at 3.4 times the mean rate for a while, at 0.2 times for three times as long, both exponential
};
inline constexpr std::array kArrivalKinds = {ArrivalKind::kNone, ArrivalKind::kSteady, ArrivalKind::kDiurnal,
                                             ArrivalKind::kBursty};
const char* ArrivalKindName(ArrivalKind kind);  // "none", "steady", "diurnal", "bursty"

enum class BudgetKind {
  kNone,       // the trace says nothing of memory
  kConstant,   // high, once
  kSawtooth,   // from high down to low in eight steps, then high again
  kMemoryHog,  // high; low for the middle third of every period, as when another process takes memory and gives it back
  kRandomWalk,  // steps of up to an eighth of the range, up or down, within low and high
  kTrembling,   // within 3 % around the middle of low and high
};
inline constexpr std::array kBudgetKinds = {BudgetKind::kNone,      BudgetKind::kConstant,   BudgetKind::kSawtooth,
                                            BudgetKind::kMemoryHog, BudgetKind::kRandomWalk, BudgetKind::kTrembling};
const char* BudgetKindName(
    BudgetKind kind);  // "none", "constant", "sawtooth", "memory-hog", "random-walk", "trembling"

// Lengths are log-normal: the geometric mean is the median, and both ends are two standard deviations away, where the
// tails are cut. REQUIRES: 1 <= low <= high
struct TokenRange {
  int64_t low = 1;
  int64_t high = 1;
};

struct TraceOptions {
  std::string name = {};  // empty: named after the kinds
  uint64_t seed = 1;
  double seconds = 600;
  ArrivalKind arrivals = ArrivalKind::kSteady;
  double rate = 1;            // requests per second, on average
  double arrival_period = 0;  // seconds of a day (diurnal), of a burst and the quiet after it (bursty); 0: a quarter
                              // of the trace for days, 20 s for bursts
  TokenRange prompt_tokens = {32, 256};
  TokenRange max_tokens = {16, 128};
  int64_t shared_prefix_tokens = 0;  // at the head of every prompt, as far as it is long enough; 0: nothing is shared
  BudgetKind budget = BudgetKind::kConstant;
  double high_percent = 100;
  double low_percent = 60;
  double budget_period = 0;  // seconds of a tooth or of a hog's visit with its quiet; of eight steps of walk or tremor;
                             // 0: a quarter of the trace
};

// kInvalidArgument on options out of range and on traces of more than kMaxTraceItems arrivals or steps. Arrivals,
// lengths and budgets are drawn apart: another kind of one leaves the others as they are.
Result<LoadTrace> GenerateTrace(const TraceOptions& options);

}  // namespace espalier
