// What one row of logits says about the token that came next, and how two rows differ. In double: perplexities are
// compared with other programs' to four digits, and KL divergences of nearly equal rows are differences of large sums.
#pragma once

#include <cstdint>
#include <span>

namespace espalier {

// -ln p(token), in nats. REQUIRES: token < logits.size(). Not finite if a logit is not.
double NegativeLogLikelihood(std::span<const float> logits, int32_t token);

struct RowComparison {
  double nll_dense = 0;
  double nll_plan = 0;
  double kl = 0;     // KL(dense || plan), nats; exactly 0 for equal rows, never negative
  double paper = 0;  // KL(plan || dense), the papers' direction
  bool same_top = false;
};

// REQUIRES: rows of equal size, token < size.
RowComparison CompareRows(std::span<const float> dense, std::span<const float> plan, int32_t token);

}  // namespace espalier
