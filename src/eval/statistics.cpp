#include "eval/statistics.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace espalier {

double Moments::mean_error() const {
  if (count_ < 2) {
    return 0;
  }
  const double variance = sum_of_squares_ / static_cast<double>(count_) - mean() * mean();
  return variance > 0 ? std::sqrt(variance / static_cast<double>(count_ - 1)) : 0;
}

Estimate PerplexityOf(Estimate mean_nll) {
  const double value = std::exp(mean_nll.value);
  return {value, value * mean_nll.error};
}

Estimate RootOf(Estimate mean_square) {
  const double root = std::sqrt(mean_square.value);
  return {root, root > 0 ? 0.5 / root * mean_square.error : 0};
}

Estimate ShareOf(int64_t hits, int64_t count) {
  if (count == 0) {
    return {};
  }
  const double share = static_cast<double>(hits) / static_cast<double>(count);
  return {share, count > 1 ? std::sqrt(share * (1 - share) / static_cast<double>(count - 1)) : 0};
}

double Percentile(std::span<const float> sorted, double fraction) {
  ESPALIER_CHECK(!sorted.empty() && fraction >= 0 && fraction <= 1);
  const double place = fraction * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double weight = place - static_cast<double>(below);
  return (1 - weight) * sorted[below] + weight * sorted[above];
}

}  // namespace espalier
