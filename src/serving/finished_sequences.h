// KV of finished requests, kept for requests that begin alike.
//
// A sequence is taken over whole: the new request goes on in it, after what they have in common. All that is kept was
// computed under the plan that is resident: when the plan changes the owner takes everything out, so that an answer
// never depends on who asked before.
#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <vector>

#include "model/workload.h"
#include "runtime/engine.h"

namespace espalier {

// Bookkeeping only: the owner removes sequences from the engine. Thread rule: one thread at a time.
class FinishedSequences {
 public:
  // `tokens`: exactly those that the engine computed.
  void Add(SequenceId sequence, std::vector<int32_t> tokens);

  struct Match {
    SequenceId sequence = -1;
    int64_t common_tokens = 0;
  };
  // The one that has most in common with `prompt`, taken out; the newest of several. Empty if none has at least
  // `least_common` tokens in common.
  std::optional<Match> Take(std::span<const int32_t> prompt, int64_t least_common);
  // The one that was used last the longest ago, taken out.
  std::optional<SequenceId> TakeOldest();

  bool empty() const { return kept_.empty(); }
  int64_t cells() const { return cells_; }
  size_t size() const { return kept_.size(); }
  Workload Held() const;
  std::vector<SequenceId> sequences() const;

 private:
  struct Kept {
    SequenceId sequence;
    std::vector<int32_t> tokens;
  };
  SequenceId Remove(std::list<Kept>::iterator kept);

  std::list<Kept> kept_;  // oldest first
  int64_t cells_ = 0;
};

}  // namespace espalier
