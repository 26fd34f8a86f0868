#include "serving/batch_plan.h"

#include <algorithm>
#include <numeric>

namespace espalier {

std::vector<int64_t> PlanBatch(std::span<const BatchDemand> demands, int64_t prompt_tokens, int64_t step_tokens) {
  std::vector<int64_t> shares(demands.size());
  std::vector<size_t> prompts;
  for (size_t i = 0; i < demands.size(); ++i) {
    if (demands[i].decoding) {
      shares[i] = 1;
    } else if (demands[i].tokens > 0) {
      prompts.push_back(i);
    }
  }
  const int64_t decoding = std::accumulate(shares.begin(), shares.end(), int64_t{0});
  int64_t left = std::max<int64_t>(std::min(prompt_tokens, step_tokens - decoding), 1);
  // Not one for each: those that come first, or new short prompts would keep a long one waiting for ever.
  if (static_cast<int64_t>(prompts.size()) > left) {
    prompts.resize(static_cast<size_t>(left));
  }
  // The smallest first: what they leave is shared by the others.
  std::stable_sort(prompts.begin(), prompts.end(),
                   [&](size_t a, size_t b) { return demands[a].tokens < demands[b].tokens; });
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto sharers = static_cast<int64_t>(prompts.size() - i);
    const int64_t share = std::min(demands[prompts[i]].tokens, left / sharers);
    shares[prompts[i]] = share;
    left -= share;
  }
  return shares;
}

}  // namespace espalier
