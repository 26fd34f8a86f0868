// What one step computes: a token for each request that is decoding, then stretches of prompts.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace espalier {

struct BatchDemand {
  int64_t tokens = 0;     // that it could compute now
  bool decoding = false;  // exactly one, and somebody is waiting for it
};

// How many tokens of each demand the step computes. Decoding requests get theirs always. At most `prompt_tokens` go to
// the others, of at most `step_tokens` in all: shared evenly, so that a short prompt does not wait for a long one;
// what one does not need the others get; a rest that does not divide goes to the longest. Where there are fewer tokens
// than prompts the first ones get them. While there is a prompt, at least one token of one gets through.
std::vector<int64_t> PlanBatch(std::span<const BatchDemand> demands, int64_t prompt_tokens, int64_t step_tokens);

}  // namespace espalier
