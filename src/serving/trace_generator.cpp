#include "serving/trace_generator.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>
#include <vector>

#include "base/uniform.h"

namespace espalier {
namespace {

using Random = std::mt19937_64;

enum class Stream : uint64_t { kTimes, kLengths, kBudgets };

Random RandomOf(const TraceOptions& o, Stream stream) {
  // The odd factor keeps neighbouring seeds' streams apart.
  return Random(o.seed * 0x9E3779B97F4A7C15 + static_cast<uint64_t>(stream));
}

double Exponential(Random* random, double mean) { return -mean * std::log1p(-Uniform(random)); }

double Normal(Random* random) {
  const double radius = std::sqrt(-2 * std::log1p(-Uniform(random)));
  return radius * std::cos(2 * std::numbers::pi * Uniform(random));
}

double Milliseconds(double seconds) { return std::round(seconds * 1e3) / 1e3; }

int64_t Length(Random* random, const TokenRange& range) {
  const double low = std::log(static_cast<double>(range.low));
  const double high = std::log(static_cast<double>(range.high));
  double drawn = (low + high) / 2;
  for (int i = 0; i < 16; ++i) {
    const double candidate = (low + high) / 2 + (high - low) / 4 * Normal(random);
    if (candidate >= low && candidate <= high) {
      drawn = candidate;
      break;
    }
  }
  return std::clamp(static_cast<int64_t>(std::llround(std::exp(drawn))), range.low, range.high);
}

// How many times the mean rate there is, at any moment; moments are asked for in their order.
class RateShape {
 public:
  RateShape(const TraceOptions& o, Random* random) : options_(o), random_(random) {
    const double usual = o.arrivals == ArrivalKind::kDiurnal ? o.seconds / 4 : 20;
    period_ = o.arrival_period > 0 ? o.arrival_period : usual;
    if (o.arrivals == ArrivalKind::kBursty) {
      switch_at_ = Exponential(random_, period_ * 3 / 4);
    }
  }

  double most() const {
    return options_.arrivals == ArrivalKind::kDiurnal ? 1.8 : options_.arrivals == ArrivalKind::kBursty ? kBurst : 1;
  }

  double At(double seconds) {
    if (options_.arrivals == ArrivalKind::kDiurnal) {
      return 1 - 0.8 * std::cos(2 * std::numbers::pi * seconds / period_);
    }
    if (options_.arrivals == ArrivalKind::kBursty) {
      while (seconds >= switch_at_) {
        burst_ = !burst_;
        switch_at_ += Exponential(random_, burst_ ? period_ / 4 : period_ * 3 / 4);
      }
      return burst_ ? kBurst : kQuiet;
    }
    return 1;
  }

 private:
  // A quarter of the time at one, the rest at the other: 1 on average.
  static constexpr double kBurst = 3.4;
  static constexpr double kQuiet = 0.2;

  const TraceOptions& options_;
  Random* random_;
  double period_ = 0;
  bool burst_ = false;
  double switch_at_ = 0;
};

// By thinning: moments at the highest rate, of which those stay that the rate of the moment has room for.
Status AddArrivals(const TraceOptions& o, LoadTrace* trace) {
  if (o.arrivals == ArrivalKind::kNone) {
    return Status::Ok();
  }
  Random times = RandomOf(o, Stream::kTimes);
  Random lengths = RandomOf(o, Stream::kLengths);
  RateShape shape(o, &times);
  const double mean_gap = 1 / (o.rate * shape.most());
  for (double at = Exponential(&times, mean_gap); at < o.seconds; at += Exponential(&times, mean_gap)) {
    const double rate = shape.At(at);  // draws, too: before the other draw, or the order were the compiler's
    if (Uniform(&times) * shape.most() >= rate) {
      continue;
    }
    if (trace->arrivals.size() == kMaxTraceItems) {
      return InvalidArgument(fmt::format("load trace of {} requests per second over {} s: expected at most {} requests",
                                         o.rate, o.seconds, kMaxTraceItems));
    }
    Arrival arrival;
    arrival.seconds = std::min(Milliseconds(at), o.seconds);
    arrival.prompt_tokens = Length(&lengths, o.prompt_tokens);
    arrival.max_tokens = Length(&lengths, o.max_tokens);
    // 53 bits: what every JSON reader can hold.
    arrival.prompt_seed = lengths() >> 11;
    arrival.shared_prefix_tokens = std::min(o.shared_prefix_tokens, arrival.prompt_tokens);
    trace->arrivals.push_back(arrival);
  }
  return Status::Ok();
}

void AddBudget(double at, double percent, LoadTrace* trace) {
  const double rounded = std::clamp(std::round(percent * 100) / 100, 0.01, 100.0);
  trace->budgets.push_back({std::min(Milliseconds(at), trace->duration_seconds), Budget::Percent(rounded)});
}

// The percentage of the `i`-th step; `last` is that of the step before.
double StepPercent(const TraceOptions& o, int64_t i, double last, Random* random) {
  const double range = o.high_percent - o.low_percent;
  const double middle = (o.high_percent + o.low_percent) / 2;
  switch (o.budget) {
    case BudgetKind::kSawtooth:
      return o.high_percent - range * static_cast<double>(i % 8) / 7;
    case BudgetKind::kMemoryHog:
      return i % 3 == 1 ? o.low_percent : o.high_percent;
    case BudgetKind::kRandomWalk: {
      const double next = (i == 0 ? middle : last) + range / 8 * (2 * Uniform(random) - 1);
      const double mirrored = next > o.high_percent  ? 2 * o.high_percent - next
                              : next < o.low_percent ? 2 * o.low_percent - next
                                                     : next;
      return mirrored;
    }
    case BudgetKind::kTrembling:
      return std::min(middle * (1 + 0.03 * (2 * Uniform(random) - 1)), 100.0);
    case BudgetKind::kNone:
    case BudgetKind::kConstant:
      break;
  }
  return o.high_percent;
}

Status AddBudgets(const TraceOptions& o, LoadTrace* trace) {
  if (o.budget == BudgetKind::kNone) {
    return Status::Ok();
  }
  Random random = RandomOf(o, Stream::kBudgets);
  const double period = o.budget_period > 0 ? o.budget_period : o.seconds / 4;
  const double step = o.budget == BudgetKind::kConstant    ? o.seconds
                      : o.budget == BudgetKind::kMemoryHog ? period / 3
                                                           : period / 8;
  if (o.seconds / step >= static_cast<double>(kMaxTraceItems)) {
    return InvalidArgument(fmt::format("load trace of {} s with a budget period of {} s: expected at most {} steps",
                                       o.seconds, period, kMaxTraceItems));
  }
  double last = 0;
  // Half a step from the end: a last step at the very end would be one by rounding only.
  for (int64_t i = 0; static_cast<double>(i) * step < o.seconds - step / 2; ++i) {
    last = StepPercent(o, i, last, &random);
    AddBudget(static_cast<double>(i) * step, last, trace);
  }
  return Status::Ok();
}

Status CheckRange(const char* what, const TokenRange& range) {
  return range.low >= 1 && range.low <= range.high && range.high <= kMaxTraceTokens
             ? Status::Ok()
             : InvalidArgument(fmt::format("{} of {}-{}: expected LOW-HIGH from 1 to {}", what, range.low, range.high,
                                           kMaxTraceTokens));
}

Status CheckOptions(const TraceOptions& o) {
  ESPALIER_RETURN_IF_ERROR(CheckDuration(o.seconds));
  ESPALIER_RETURN_IF_ERROR(CheckRange("prompt tokens", o.prompt_tokens));
  ESPALIER_RETURN_IF_ERROR(CheckRange("max tokens", o.max_tokens));
  if (o.arrivals != ArrivalKind::kNone && !(o.rate > 0 && o.rate <= 1e6)) {
    return InvalidArgument(fmt::format("rate of {} requests per second: expected above 0 and at most 1000000", o.rate));
  }
  if (!(o.low_percent > 0 && o.low_percent <= o.high_percent && o.high_percent <= 100)) {
    return InvalidArgument(
        fmt::format("budget from {} % to {} %: expected 0 < low <= high <= 100", o.low_percent, o.high_percent));
  }
  for (const double period : {o.arrival_period, o.budget_period}) {
    if (!(period == 0 || (period >= 1e-2 && period <= kMaxTraceSeconds))) {
      return InvalidArgument(fmt::format("period of {} s: expected 0.01 to {:.0f}, or 0", period, kMaxTraceSeconds));
    }
  }
  if (o.shared_prefix_tokens < 0) {
    return InvalidArgument(fmt::format("shared prefix of {} tokens: expected 0 or more", o.shared_prefix_tokens));
  }
  return Status::Ok();
}

}  // namespace

const char* ArrivalKindName(ArrivalKind kind) {
  switch (kind) {
    case ArrivalKind::kNone:
      return "none";
    case ArrivalKind::kSteady:
      return "steady";
    case ArrivalKind::kDiurnal:
      return "diurnal";
    case ArrivalKind::kBursty:
      return "bursty";
  }
  return "?";
}

const char* BudgetKindName(BudgetKind kind) {
  switch (kind) {
    case BudgetKind::kNone:
      return "none";
    case BudgetKind::kConstant:
      return "constant";
    case BudgetKind::kSawtooth:
      return "sawtooth";
    case BudgetKind::kMemoryHog:
      return "memory-hog";
    case BudgetKind::kRandomWalk:
      return "random-walk";
    case BudgetKind::kTrembling:
      return "trembling";
  }
  return "?";
}

Result<LoadTrace> GenerateTrace(const TraceOptions& options) {
  ESPALIER_RETURN_IF_ERROR(CheckOptions(options));
  LoadTrace trace;
  trace.name = !options.name.empty() ? options.name
                                     : fmt::format("{} arrivals, {} budget", ArrivalKindName(options.arrivals),
                                                   BudgetKindName(options.budget));
  trace.seed = options.seed;
  trace.duration_seconds = options.seconds;
  ESPALIER_RETURN_IF_ERROR(AddArrivals(options, &trace));
  ESPALIER_RETURN_IF_ERROR(AddBudgets(options, &trace));
  // Rounding may let two moments meet, never pass.
  ESPALIER_RETURN_IF_ERROR(CheckTrace(trace));
  return trace;
}

}  // namespace espalier
