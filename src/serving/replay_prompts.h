// Prompts for a load trace, which says only how long they are.
#pragma once

#include <cstdint>
#include <vector>

#include "serving/load_trace.h"

namespace espalier {

struct PromptSource {
  // REQUIRES: above 0
  int32_t n_vocab = 0;
  // Prompts are stretches of it, its end followed by its beginning; empty: tokens drawn evenly from the vocabulary,
  // good enough where only time and memory count.
  std::vector<int32_t> corpus;
  int32_t first_token = -1;  // at the head of every prompt, such as BOS; -1: none
};

// The prompt of `arrival`: the same for the same source, trace seed, prompt seed and lengths, on every machine.
std::vector<int32_t> MakePrompt(const PromptSource& source, uint64_t trace_seed, const Arrival& arrival);

}  // namespace espalier
