// One batch of the engine loop: tokens in, samples out.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "runtime/engine.h"
#include "serving/request.h"
#include "serving/work.h"

namespace espalier {

// The next `tokens` of a request that are still to be computed.
struct BatchShare {
  Work* work = nullptr;
  int64_t tokens = 0;
};

struct SampledToken {
  Work* work = nullptr;
  TokenScores scores;  // only chosen.token where no scores were asked for
  Status status;       // of the sampler: a grammar may not allow the token
};

// Runs the shares as one batch. Where a share ends with the last token that is known the next one is sampled, in the
// order of the shares; scores of prompts go to their work. Fails as the engine does.
Status RunShares(Engine& engine, std::span<const BatchShare> shares, std::vector<SampledToken>& sampled);

}  // namespace espalier
