#include "serving/replay_statistics.h"

#include <algorithm>

#include "eval/statistics.h"

namespace espalier {

void LatencySample::Add(double seconds) {
  const double ms = 1e3 * seconds;
  max_ = std::max(max_, ms);
  ++count_;
  if (kept_.size() < kCapacity) {
    kept_.push_back(static_cast<float>(ms));
  } else if (const uint64_t place = random_() % static_cast<uint64_t>(count_); place < kCapacity) {
    // Vitter's algorithm R: every duration so far is in the sample with the same probability.
    kept_[place] = static_cast<float>(ms);
  }
}

Latencies LatencySample::Summary() const {
  if (kept_.empty()) {
    return {};
  }
  std::vector<float> sorted = kept_;
  std::sort(sorted.begin(), sorted.end());
  return {count_, Percentile(sorted, 0.5), Percentile(sorted, 0.95), Percentile(sorted, 0.99), max_};
}

void ReplayCourse::Add(const ReplayPoint& point) {
  if (points_.size() == capacity_) {
    for (size_t i = 0; 2 * i < points_.size(); ++i) {
      points_[i] = points_[2 * i];
    }
    points_.resize((points_.size() + 1) / 2);
    interval_ *= 2;
    if (!wants(point.seconds)) {
      return;
    }
  }
  points_.push_back(point);
}

void MinuteCounter::Add(double seconds) {
  ++count_;
  last_minute_.push_back(seconds);
  while (seconds - last_minute_.front() >= 60) {
    last_minute_.pop_front();
  }
  most_in_a_minute_ = std::max(most_in_a_minute_, static_cast<int64_t>(last_minute_.size()));
}

void MoveCounter::Add(double seconds, const TransitionEvent& event) {
  const bool moves = event.plan_before != event.plan_after || !event.pending.empty();
  // What was to come may be decided again meanwhile; only what goes is another change.
  const bool goes_on =
      filling_ && (event.reason == TransitionEvent::Reason::kLoad || event.plan_before == event.plan_after);
  // A rise releases nothing, so its first event is the first helping.
  const bool rose = event.reason == TransitionEvent::Reason::kLoad && last_limit_ && *last_limit_ != event.limit_bytes;
  last_limit_ = event.limit_bytes;
  filling_ = !event.pending.empty();
  if (!moves || goes_on) {
    return;
  }
  all_.Add(seconds);
  if (rose || event.reason == TransitionEvent::Reason::kBudget) {
    by_budget_.Add(seconds);
  }
}

}  // namespace espalier
