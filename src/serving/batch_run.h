// One batch of the engine loop: who computes how much, and then tokens in, samples out.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "runtime/engine.h"
#include "serving/prefill_pace.h"
#include "serving/request.h"
#include "serving/work.h"

namespace espalier {

// The next `tokens` of a request that are still to be computed.
struct BatchShare {
  Work* work = nullptr;
  int64_t tokens = 0;
};

// What one step computes of the works, as PlanBatch has it: those that are decoding first, otherwise in their order.
// Prompt tokens as the pace has it, all tokens together at most `step_tokens`. Empty if nobody has anything to compute.
std::vector<BatchShare> PlanShares(std::span<const std::unique_ptr<Work>> works, const PrefillPace& pace,
                                   int64_t step_tokens);

struct SampledToken {
  Work* work = nullptr;
  TokenScores scores;  // only chosen.token where no scores were asked for
  Status status;       // of the sampler: a grammar may not allow the token
};

// Runs the shares as one batch. Where a share ends with the last token that is known the next one is sampled, in the
// order of the shares; scores of prompts go to their work. Fails as the engine does.
Status RunShares(Engine& engine, std::span<const BatchShare> shares, std::vector<SampledToken>& sampled);

}  // namespace espalier
