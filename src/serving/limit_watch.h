// Whether the limit is kept, in figures.
#pragma once

#include <cstdint>

#include "serving/loop_time.h"

namespace espalier {

// Thread rule: one thread at a time. REQUIRES: times that do not go back.
class LimitWatch {
 public:
  explicit LimitWatch(LoopTime now) : deadline_(now), watched_(now) {}

  // Until then more than the limit is no violation: somebody has to hear of a limit first.
  void ExcuseUntil(LoopTime deadline);
  // So much longer: giving memory back takes time.
  void Excuse(LoopTime::duration longer) { deadline_ += longer; }
  // After each step, which took `step`, and is excused for as long in any case.
  void Observe(uint64_t used_bytes, uint64_t limit_bytes, LoopTime::duration step, LoopTime now);

  int64_t violations() const { return violations_; }                         // steps that ended above it
  double overshoot_byte_seconds() const { return overshoot_byte_seconds_; }  // above it, excused or not

 private:
  LoopTime deadline_;
  LoopTime watched_;
  int64_t violations_ = 0;
  double overshoot_byte_seconds_ = 0;
};

}  // namespace espalier
