#include "serving/replay_prompts.h"

#include <algorithm>
#include <random>

namespace espalier {
namespace {

void Append(const PromptSource& source, uint64_t seed, int64_t n, std::vector<int32_t>* prompt) {
  std::mt19937_64 random(seed);
  const size_t size = source.corpus.size();
  const size_t start = size > 0 ? random() % size : 0;
  for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
    prompt->push_back(size > 0 ? source.corpus[(start + i) % size]
                               : static_cast<int32_t>(random() % static_cast<uint64_t>(source.n_vocab)));
  }
}

}  // namespace

std::vector<int32_t> MakePrompt(const PromptSource& source, uint64_t trace_seed, const Arrival& arrival) {
  // Apart from every prompt's own tokens, also where a prompt's seed is the trace's.
  constexpr uint64_t kSharedStream = 0x5851F42D4C957F2D;
  std::vector<int32_t> prompt;
  prompt.reserve(static_cast<size_t>(arrival.prompt_tokens));
  Append(source, trace_seed ^ kSharedStream, arrival.shared_prefix_tokens, &prompt);
  Append(source, arrival.prompt_seed, arrival.prompt_tokens - arrival.shared_prefix_tokens, &prompt);
  if (source.first_token >= 0) {
    prompt.front() = source.first_token;
  }
  return prompt;
}

}  // namespace espalier
