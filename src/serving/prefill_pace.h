// How many prompt tokens take about a given time, learned from the steps.
#pragma once

#include <cstdint>

namespace espalier {

class PrefillPace {
 public:
  // `target_ms` per step; never more than `most` tokens nor fewer than `kLeast`, whatever the time.
  PrefillPace(double target_ms, int64_t most);

  static constexpr int64_t kLeast = 16;
  static constexpr int64_t kAlone = 5;

  int64_t tokens() const { return tokens_; }
  // While nobody waits for a next token a step may take longer, for larger stretches are computed faster; but not so
  // long that a new limit or a cancellation has to wait for it.
  int64_t tokens_alone() const { return tokens_ > most_ / kAlone ? most_ : tokens_ * kAlone; }
  // A step took `ms` for so many prompt tokens, and `other` tokens of requests that are decoding.
  void Observe(int64_t prompt_tokens, int64_t other, double ms);

 private:
  double target_ms_;
  int64_t most_;
  int64_t tokens_;
  double ms_per_token_ = 0;  // 0: not known yet
};

}  // namespace espalier
