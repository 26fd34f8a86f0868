#include "serving/recent_workloads.h"

namespace espalier {

RecentWorkloads::RecentWorkloads(double hold_ms) : hold_(Ticks(hold_ms)), remembered_(Ticks(kRemembered * hold_ms)) {}

void RecentWorkloads::Observe(const Workload& workload, LoopTime now) {
  while (!peaks_.empty() && peaks_.back().workload.Within(workload)) {
    peaks_.pop_back();
  }
  peaks_.push_back({now, workload});
  while (now - peaks_.front().at > remembered_) {
    peaks_.pop_front();
  }
}

void RecentWorkloads::Reset(const Workload& workload, LoopTime now) { peaks_ = {{now, workload}}; }

Workload RecentWorkloads::Held(LoopTime now) const {
  Workload held = peaks_.back().workload;
  for (const Peak& peak : peaks_) {
    if (now - peak.at <= hold_) {
      held = Max(held, peak.workload);
    }
  }
  return held;
}

Workload RecentWorkloads::Remembered() const {
  Workload remembered = peaks_.back().workload;
  for (const Peak& peak : peaks_) {
    remembered = Max(remembered, peak.workload);
  }
  return remembered;
}

}  // namespace espalier
