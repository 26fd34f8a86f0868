#include "serving/token_rate.h"

namespace espalier {

double TokenRate::Observe(int64_t tokens, LoopTime now) {
  seen_.emplace_back(now, tokens);
  while (seen_.size() > 2 && now - seen_[1].first >= kOver) {
    seen_.pop_front();
  }
  const auto& [since, before] = seen_.front();
  const double seconds = SecondsBetween(since, now);
  return seconds > 0 ? static_cast<double>(tokens - before) / seconds : 0;
}

}  // namespace espalier
