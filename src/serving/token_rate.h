// Tokens per second, over the last seconds.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <utility>

#include "serving/loop_time.h"

namespace espalier {

// Thread rule: one thread at a time.
class TokenRate {
 public:
  static constexpr std::chrono::seconds kOver{3};

  // So many tokens since the beginning. Returns how many a second there were on average since the youngest call that is
  // kOver back, or the first one; 0 if no time has passed. REQUIRES: neither times nor tokens go back.
  double Observe(int64_t tokens, LoopTime now);

 private:
  std::deque<std::pair<LoopTime, int64_t>> seen_;
};

}  // namespace espalier
