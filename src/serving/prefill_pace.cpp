#include "serving/prefill_pace.h"

#include <algorithm>

namespace espalier {
namespace {

constexpr int64_t kFirst = 32;       // before anything is known
constexpr double kNewest = 0.3;      // weight of the newest step
constexpr int64_t kTellingStep = 8;  // fewer prompt tokens say more about the rest of a step than about themselves
constexpr int64_t kFirstTrial = 8;   // steps until twice the least is tried; longer and longer while it is no better
constexpr int64_t kLastTrial = 256;

void Learn(double& mean, double newest) { mean = mean == 0 ? newest : (1 - kNewest) * mean + kNewest * newest; }

}  // namespace

PrefillPace::PrefillPace(double target_ms, int64_t most)
    : target_ms_(target_ms),
      most_(std::max(most, int64_t{1})),
      tokens_(std::min(kFirst, most_)),
      trial_interval_(kFirstTrial) {}

void PrefillPace::Observe(int64_t prompt_tokens, int64_t other, double ms) {
  if (prompt_tokens < kTellingStep || ms <= 0) {
    return;
  }
  if (prompt_tokens == kLeast) {
    Learn(least_ms_, ms);
  } else if (prompt_tokens == 2 * kLeast) {
    Learn(twice_ms_, ms);
  }
  Learn(ms_per_token_, ms / static_cast<double>(prompt_tokens + other));
  const double wanted = target_ms_ / ms_per_token_;
  // Not more than four times as many at once: the first step on a cold model says little.
  const double bounded = std::min({wanted, 4.0 * static_cast<double>(tokens_), static_cast<double>(most_)});
  const auto fitting = static_cast<int64_t>(bounded);
  if (fitting >= most_) {
    tokens_ = most_;
  } else if (fitting >= 2 * kLeast || most_ < 2 * kLeast) {
    tokens_ = std::max(fitting / kLeast * kLeast, std::min(kLeast, most_));
  } else {
    tokens_ = ChooseLeast();
  }
}

int64_t PrefillPace::ChooseLeast() {
  const bool twice = tokens_ == 2 * kLeast;
  const bool hardly_longer = least_ms_ > 0 && twice_ms_ > 0 && twice_ms_ <= kHardlyLonger * least_ms_;
  if (steps_until_trial_ > 0) {
    --steps_until_trial_;
    return hardly_longer ? 2 * kLeast : kLeast;
  }
  // The other one, once: what they take changes as a prompt goes on.
  steps_until_trial_ = trial_interval_;
  trial_interval_ = hardly_longer ? kFirstTrial : std::min(2 * trial_interval_, kLastTrial);
  return twice ? kLeast : 2 * kLeast;
}

}  // namespace espalier
