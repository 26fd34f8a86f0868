#include "serving/prefill_pace.h"

#include <algorithm>

namespace espalier {
namespace {

constexpr int64_t kFirst = 128;      // before anything is known
constexpr double kNewest = 0.3;      // weight of the newest step
constexpr int64_t kTellingStep = 8;  // fewer prompt tokens say more about the rest of a step than about themselves

}  // namespace

PrefillPace::PrefillPace(double target_ms, int64_t most)
    : target_ms_(target_ms), most_(std::max(most, int64_t{1})), tokens_(std::min(kFirst, most_)) {}

void PrefillPace::Observe(int64_t prompt_tokens, int64_t other, double ms) {
  if (prompt_tokens < kTellingStep || ms <= 0) {
    return;
  }
  const double per_token = ms / static_cast<double>(prompt_tokens + other);
  ms_per_token_ = ms_per_token_ == 0 ? per_token : (1 - kNewest) * ms_per_token_ + kNewest * per_token;
  const double wanted = target_ms_ / ms_per_token_;
  // Not more than four times as many at once: the first step on a cold model says little.
  const double bounded = std::min({wanted, 4.0 * static_cast<double>(tokens_), static_cast<double>(most_)});
  tokens_ = std::clamp(static_cast<int64_t>(bounded), std::min(kLeast, most_), most_);
}

}  // namespace espalier
