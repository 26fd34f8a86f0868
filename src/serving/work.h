// A request inside the loop: what it asked for, and how far it is.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "model/workload.h"
#include "runtime/engine.h"
#include "serving/loop_time.h"
#include "serving/request.h"

namespace espalier {

struct Work {
  using Time = LoopTime;

  RequestId id = 0;
  LoopRequest request;
  // Prompt and answer. The engine has computed the first `computed` of them; the next token comes out of the last one.
  // So a request that gave its KV up, or has to be computed again, is one whose `computed` is 0: nothing else differs.
  std::vector<int32_t> tokens;
  std::unique_ptr<Sampler> sampler;  // from the first admission on; none where max_tokens is 0
  int64_t computed = 0;
  SequenceId sequence = -1;  // -1: holds no KV

  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t scores_told = 0;  // prompt tokens whose scores are in `scores`; the first has none
  std::vector<TokenScores> scores;
  int preemptions = 0;
  int64_t taken_tokens = 0;  // of `computed`: taken over from a finished sequence
  int64_t plan_epoch = 0;  // MemoryKeeper's when `sequence` began: all of it was computed under one plan if it still is
  int64_t transitions_at_start = 0;
  Time submitted;
  Time started;  // first work on it
  Time first_token;
  Time last_token;

  int64_t generated() const { return static_cast<int64_t>(tokens.size()) - prompt_tokens; }
  int64_t to_compute() const { return static_cast<int64_t>(tokens.size()) - computed; }
  // One token a step; otherwise a stretch of several is still to be computed.
  bool decoding() const { return generated() > 0 && to_compute() == 1; }
  // KV cells that it may come to hold: the last token that is generated is not computed.
  int64_t cells() const { return CellsOf(prompt_tokens, request.max_tokens); }
  // The same: one sequence of so many tokens.
  Workload workload() const { return Workload::Uniform(1, cells()); }
  // How it went if it ends now. Reason, status and what is known of plans are the caller's.
  RequestEnd EndAt(Time now) const;
  RequestView View(bool running) const;
  static int64_t CellsOf(int64_t prompt_tokens, int64_t max_tokens) {
    return prompt_tokens + (max_tokens > 0 ? max_tokens - 1 : 0);
  }
};

}  // namespace espalier
