#include "serving/limit_watch.h"

#include <algorithm>

namespace espalier {

void LimitWatch::ExcuseUntil(LoopTime deadline) { deadline_ = std::max(deadline_, deadline); }

void LimitWatch::Observe(uint64_t used_bytes, uint64_t limit_bytes, LoopTime::duration step, LoopTime now) {
  if (used_bytes > limit_bytes) {
    overshoot_byte_seconds_ += static_cast<double>(used_bytes - limit_bytes) * SecondsBetween(watched_, now);
    violations_ += now > deadline_ + step ? 1 : 0;
  }
  watched_ = now;
}

}  // namespace espalier
