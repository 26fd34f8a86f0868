// From a limit that moves to one that plans are made for: falls at once, rises late.
//
// A rise is believed when the limit stayed clearly higher for a while, or when it has come to rest. A limit that
// trembles by a few per cent must not move blocks back and forth: a small fall, and one soon after another, leaves as
// much headroom as such a limit may use up (3 % to either side of its middle), and so does a rise of one that still
// moves.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>

namespace espalier {

struct HysteresisOptions {
  std::chrono::duration<double> grow_after{2};
  std::chrono::duration<double> settle{60};
};

// Thread rule: one thread at a time.
class LimitHysteresis {
 public:
  using Time = std::chrono::steady_clock::time_point;

  static constexpr double kClearRise = 1.15;  // against the planned limit: believed after grow_after
  static constexpr double kSlowRise = 1.04;   // headroom left: believed after settle, though the limit still moves
  static constexpr double kAtRest = 0.005;    // a limit that moved no more than this through settle is at rest
  static constexpr double kSmallFall = 0.90;  // against the planned limit: leaves headroom
  static constexpr double kHeadroom = 0.06;   // 1 - 0.97 / 1.03

  LimitHysteresis(uint64_t limit_bytes, Time now, const HysteresisOptions& options);

  // The limit to plan for, never above `limit_bytes`. Where it is `deliberate` (somebody set the limit) any rise counts
  // as clear, however small, and a fall leaves no headroom: it does not tremble. REQUIRES: times that do not go back.
  uint64_t Observe(uint64_t limit_bytes, Time now, bool deliberate = false);
  uint64_t planned_bytes() const { return planned_; }

 private:
  struct Sample {
    Time at;
    uint64_t bytes;
  };
  // The lowest and the highest limit of the last `window`; false if it has not been watched for so long.
  bool Range(std::chrono::duration<double> window, Time now, uint64_t& low, uint64_t& high) const;
  void Fall(uint64_t limit_bytes, Time now, bool deliberate);

  HysteresisOptions options_;
  uint64_t planned_;
  std::deque<Sample> samples_;  // changes of the limit; the first may be older than the window
  bool fell_before_ = false;
  Time last_fall_;
};

}  // namespace espalier
