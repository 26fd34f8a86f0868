#include "serving/token_scores.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace espalier {

TokenScores ScoreToken(std::span<const float> logits, int32_t token, int n_top) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) {
    sum += std::exp(static_cast<double>(logit - largest));
  }
  const double log_sum = std::log(sum) + static_cast<double>(largest);
  const auto score = [&](int32_t id) {
    return ScoredToken{id, static_cast<float>(static_cast<double>(logits[static_cast<size_t>(id)]) - log_sum)};
  };
  TokenScores scores;
  scores.chosen = score(token);
  const auto n = std::min(static_cast<size_t>(std::max(n_top, 0)), logits.size());
  if (n > 0) {
    std::vector<int32_t> ids(logits.size());
    std::iota(ids.begin(), ids.end(), 0);
    std::partial_sort(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(n), ids.end(), [&](int32_t a, int32_t b) {
      const float x = logits[static_cast<size_t>(a)];
      const float y = logits[static_cast<size_t>(b)];
      return x > y || (x == y && a < b);
    });
    for (size_t i = 0; i < n; ++i) {
      scores.top.push_back(score(ids[i]));
    }
  }
  return scores;
}

}  // namespace espalier
