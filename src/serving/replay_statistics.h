// What a replay counts, in memory that does not grow with its length.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <random>
#include <vector>

#include "control/controller.h"

namespace espalier {

// Milliseconds.
struct Latencies {
  int64_t count = 0;
  double p50 = 0;  // 0 where there are none, likewise below
  double p95 = 0;
  double p99 = 0;
  double max = 0;
};

// Durations, of which an even sample is kept where there are more than kCapacity.
class LatencySample {
 public:
  static constexpr size_t kCapacity = size_t{1} << 18;
  void Add(double seconds);
  Latencies Summary() const;

 private:
  std::vector<float> kept_;  // milliseconds
  int64_t count_ = 0;
  double max_ = 0;
  std::mt19937_64 random_{1};
};

// One moment of a replay.
struct ReplayPoint {
  double seconds = 0;
  uint64_t limit_bytes = 0;
  uint64_t planned_bytes = 0;
  uint64_t used_bytes = 0;  // managed + process
  int running = 0;
  int waiting = 0;
};

// A course over time of at most `capacity` points, evenly spread: when it is full every second point goes, and points
// are taken half as often. A spike between two points is not in it; the loop counts those itself.
class ReplayCourse {
 public:
  // REQUIRES: interval > 0, capacity >= 2
  ReplayCourse(double interval_seconds, size_t capacity) : interval_(interval_seconds), capacity_(capacity) {}
  bool wants(double seconds) const { return points_.empty() || seconds >= points_.back().seconds + interval_; }
  void Add(const ReplayPoint& point);
  std::vector<ReplayPoint> Take() && { return std::move(points_); }

 private:
  double interval_;
  size_t capacity_;
  std::vector<ReplayPoint> points_;
};

// How often something happens, and how densely.
class MinuteCounter {
 public:
  // REQUIRES: times that do not go back
  void Add(double seconds);
  int64_t count() const { return count_; }
  // Within any 60 seconds.
  int64_t most_in_a_minute() const { return most_in_a_minute_; }

 private:
  int64_t count_ = 0;
  int64_t most_in_a_minute_ = 0;
  std::deque<double> last_minute_;
};

// Changes of plan as people count them: one that fills memory in several helpings is one.
class MoveCounter {
 public:
  void Add(double seconds, const TransitionEvent& event);
  const MinuteCounter& all() const { return all_; }
  // Of them: because the limit that is planned for moved, not because requests came and went.
  const MinuteCounter& by_budget() const { return by_budget_; }

 private:
  bool filling_ = false;
  std::optional<uint64_t> last_limit_;
  MinuteCounter all_;
  MinuteCounter by_budget_;
};

}  // namespace espalier
