#include "serving/load_trace.h"

#include <fmt/format.h>

#include <algorithm>

namespace espalier {
namespace {

Status Expected(const char* field, const std::string& what, const std::string& found) {
  return InvalidArgument(fmt::format("field \"{}\": expected {}, found {}", field, what, found));
}

Status CheckTokens(const char* field, int64_t low, int64_t high, int64_t found) {
  return found >= low && found <= high ? Status::Ok()
                                       : Expected(field, fmt::format("{} to {}", low, high), fmt::format("{}", found));
}

template <class Item>
bool Sorted(const std::vector<Item>& items) {
  return std::is_sorted(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.seconds < b.seconds; });
}

template <class Item>
void Sort(std::vector<Item>* items) {
  std::stable_sort(items->begin(), items->end(), [](const Item& a, const Item& b) { return a.seconds < b.seconds; });
}

}  // namespace

void SortTrace(LoadTrace* trace) {
  Sort(&trace->arrivals);
  Sort(&trace->budgets);
}

Status CheckDuration(double seconds) {
  // Written so that NaN fails, too; likewise below.
  return seconds > 0 && seconds <= kMaxTraceSeconds
             ? Status::Ok()
             : Expected("duration_seconds", fmt::format("above 0 and at most {:.0f}", kMaxTraceSeconds),
                        fmt::format("{}", seconds));
}

Status CheckMoment(double seconds, double duration) {
  return seconds >= 0 && seconds <= duration
             ? Status::Ok()
             : Expected("at", fmt::format("0 to {}, the trace's seconds", duration), fmt::format("{}", seconds));
}

Status CheckArrival(const Arrival& arrival, double duration) {
  ESPALIER_RETURN_IF_ERROR(CheckMoment(arrival.seconds, duration));
  ESPALIER_RETURN_IF_ERROR(CheckTokens("prompt_tokens", 1, kMaxTraceTokens, arrival.prompt_tokens));
  ESPALIER_RETURN_IF_ERROR(CheckTokens("max_tokens", 1, kMaxTraceTokens, arrival.max_tokens));
  return CheckTokens("shared_prefix_tokens", 0, arrival.prompt_tokens, arrival.shared_prefix_tokens);
}

Status CheckTrace(const LoadTrace& trace) {
  ESPALIER_RETURN_IF_ERROR(CheckDuration(trace.duration_seconds));
  if (trace.name.size() > kMaxTraceNameBytes) {
    return Expected("name", fmt::format("at most {} bytes", kMaxTraceNameBytes), fmt::format("{}", trace.name.size()));
  }
  const size_t most = std::max(trace.arrivals.size(), trace.budgets.size());
  if (most > kMaxTraceItems) {
    return InvalidArgument(
        fmt::format("load trace: expected at most {} arrivals and budgets each, found {}", kMaxTraceItems, most));
  }
  for (size_t i = 0; i < trace.arrivals.size(); ++i) {
    if (const Status status = CheckArrival(trace.arrivals[i], trace.duration_seconds); !status.ok()) {
      return InvalidArgument(fmt::format("arrival {}: {}", i + 1, status.message()));
    }
  }
  for (size_t i = 0; i < trace.budgets.size(); ++i) {
    if (const Status status = CheckMoment(trace.budgets[i].seconds, trace.duration_seconds); !status.ok()) {
      return InvalidArgument(fmt::format("budget {}: {}", i + 1, status.message()));
    }
  }
  if (!Sorted(trace.arrivals) || !Sorted(trace.budgets)) {
    return InvalidArgument("load trace: expected arrivals and budgets in the order of time");
  }
  return Status::Ok();
}

}  // namespace espalier
