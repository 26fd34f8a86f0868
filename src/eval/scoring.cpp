#include "eval/scoring.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace espalier {
namespace {

size_t IndexOfMax(std::span<const float> logits) {
  return static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace

// The exponential is libm's: 2-3 ns an element, a few percent of what computing the row's logits costs even on the
// reference model. A polynomial in SSE2 vectors was tried and was not faster.
double NegativeLogLikelihood(std::span<const float> logits, int32_t token) {
  ESPALIER_CHECK(token >= 0 && static_cast<size_t>(token) < logits.size());
  const double max = logits[IndexOfMax(logits)];
  double sum = 0;
  for (const float logit : logits) {
    sum += std::exp(logit - max);
  }
  return max + std::log(sum) - logits[static_cast<size_t>(token)];
}

// With Z the partition sum and d, q the rows: KL = sum e^(d-max) (d - q) / Z_d - (ln Z_d - ln Z_q), so one pass gives
// both directions without storing probabilities.
RowComparison CompareRows(std::span<const float> dense, std::span<const float> plan, int32_t token) {
  ESPALIER_CHECK(dense.size() == plan.size() && token >= 0 && static_cast<size_t>(token) < dense.size());
  const size_t top_dense = IndexOfMax(dense);
  const size_t top_plan = IndexOfMax(plan);
  const double max_dense = dense[top_dense];
  const double max_plan = plan[top_plan];
  double sum_dense = 0, sum_plan = 0, difference_dense = 0, difference_plan = 0;
  for (size_t i = 0; i < dense.size(); ++i) {
    const double weight_dense = std::exp(dense[i] - max_dense);
    const double weight_plan = std::exp(plan[i] - max_plan);
    const double difference = static_cast<double>(dense[i]) - plan[i];
    sum_dense += weight_dense;
    sum_plan += weight_plan;
    difference_dense += weight_dense * difference;
    difference_plan += weight_plan * difference;
  }
  const double log_z_dense = max_dense + std::log(sum_dense);
  const double log_z_plan = max_plan + std::log(sum_plan);
  const double log_ratio = log_z_dense - log_z_plan;
  const auto at = static_cast<size_t>(token);
  RowComparison comparison;
  comparison.nll_dense = log_z_dense - dense[at];
  comparison.nll_plan = log_z_plan - plan[at];
  comparison.kl = std::max(0.0, difference_dense / sum_dense - log_ratio);
  comparison.paper = std::max(0.0, log_ratio - difference_plan / sum_plan);
  comparison.same_top = top_dense == top_plan;
  return comparison;
}

}  // namespace espalier
