#include "serving/limit_hysteresis.h"

#include <algorithm>

namespace espalier {

LimitHysteresis::LimitHysteresis(uint64_t limit_bytes, Time now, const HysteresisOptions& options)
    : options_(options), planned_(limit_bytes), samples_{{now, limit_bytes}}, last_fall_(now) {}

bool LimitHysteresis::Range(std::chrono::duration<double> window, Time now, uint64_t& low, uint64_t& high) const {
  if (now - samples_.front().at < window) {
    return false;
  }
  low = UINT64_MAX;
  high = 0;
  // Newest first; the sample in force when the window began counts, too.
  for (auto sample = samples_.rbegin(); sample != samples_.rend(); ++sample) {
    low = std::min(low, sample->bytes);
    high = std::max(high, sample->bytes);
    if (now - sample->at >= window) {
      break;
    }
  }
  return true;
}

void LimitHysteresis::Fall(uint64_t limit_bytes, Time now, bool deliberate) {
  const bool small = static_cast<double>(limit_bytes) >= kSmallFall * static_cast<double>(planned_);
  const bool again = fell_before_ && now - last_fall_ < options_.settle;
  fell_before_ = true;
  last_fall_ = now;
  planned_ = !deliberate && (small || again) ? static_cast<uint64_t>(static_cast<double>(limit_bytes) * (1 - kHeadroom))
                                             : limit_bytes;
}

uint64_t LimitHysteresis::Observe(uint64_t limit_bytes, Time now, bool deliberate) {
  if (samples_.back().bytes != limit_bytes) {
    samples_.push_back({now, limit_bytes});
  }
  while (samples_.size() > 1 && now - samples_[1].at > std::max(options_.settle, options_.grow_after)) {
    samples_.pop_front();
  }
  if (limit_bytes < planned_) {
    Fall(limit_bytes, now, deliberate);
    return planned_;
  }
  uint64_t low = 0;
  uint64_t high = 0;
  const auto planned = static_cast<double>(planned_);
  const double clear = deliberate ? 1 : kClearRise;
  if (Range(options_.grow_after, now, low, high) && low > planned_ && static_cast<double>(low) >= clear * planned) {
    planned_ = low;
  } else if (Range(options_.settle, now, low, high) && low > planned_) {
    const bool at_rest = static_cast<double>(high) <= (1 + kAtRest) * static_cast<double>(low);
    const double with_headroom = static_cast<double>(low) * (1 - kHeadroom);
    if (at_rest) {
      planned_ = low;
    } else if (with_headroom >= kSlowRise * planned) {
      planned_ = static_cast<uint64_t>(with_headroom);
    }
  }
  return planned_;
}

}  // namespace espalier
