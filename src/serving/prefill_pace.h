// How many prompt tokens take about a given time, learned from the steps.
#pragma once

#include <cstdint>

namespace espalier {

class PrefillPace {
 public:
  // `target_ms` per step; never more than `most` tokens nor fewer than `kLeast`, whatever the time.
  PrefillPace(double target_ms, int64_t most);

  // Multiples of so many: where four heads share keys they fill a tile of attention (AttentionGroup::packed).
  static constexpr int64_t kLeast = 16;
  static constexpr int64_t kAlone = 5;
  // Where even the least takes longer than wanted, twice as much is taken if it takes no longer than this by
  // comparison: far into a long prompt a half-full tile costs as much as a full one. Tried out once in a while.
  static constexpr double kHardlyLonger = 1.25;

  int64_t tokens() const { return tokens_; }
  // While nobody waits for a next token a step may take longer, for larger stretches are computed faster; but not so
  // long that a new limit or a cancellation has to wait for it.
  int64_t tokens_alone() const { return tokens_ > most_ / kAlone ? most_ : tokens_ * kAlone; }
  // A step took `ms` for so many prompt tokens, and `other` tokens of requests that are decoding.
  void Observe(int64_t prompt_tokens, int64_t other, double ms);

 private:
  // Of the smallest step or of twice that, when what is wanted is less.
  int64_t ChooseLeast();

  double target_ms_;
  int64_t most_;
  int64_t tokens_;
  double ms_per_token_ = 0;  // 0: not known yet
  double least_ms_ = 0;      // of steps of kLeast, and of twice as many; 0: not known
  double twice_ms_ = 0;
  int64_t steps_until_trial_ = 0;
  int64_t trial_interval_;
};

}  // namespace espalier
