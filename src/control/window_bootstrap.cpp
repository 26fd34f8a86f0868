#include "control/window_bootstrap.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "base/check.h"

namespace espalier {

WindowBootstrap::WindowBootstrap(int64_t n_windows, int n_resamples, uint64_t seed) {
  ESPALIER_CHECK(n_windows > 0 && n_resamples > 0);
  std::mt19937_64 random(seed);
  const auto n = static_cast<uint64_t>(n_windows);
  counts_.resize(static_cast<size_t>(n_resamples));
  for (auto& counts : counts_) {
    counts.resize(n, 0);
    for (uint64_t i = 0; i < n; ++i) {
      // Not std::uniform_int_distribution, whose draws differ between standard libraries. The bias of the remainder is
      // n / 2^64.
      ++counts[random() % n];
    }
  }
}

std::vector<double> WindowBootstrap::Means(std::span<const double> by_window) const {
  std::vector<double> means;
  means.reserve(counts_.size());
  for (const auto& counts : counts_) {
    ESPALIER_CHECK(counts.size() == by_window.size());
    double sum = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      sum += counts[i] * by_window[i];
    }
    means.push_back(sum / static_cast<double>(counts.size()));
  }
  return means;
}

Interval WindowBootstrap::IntervalOf(double value, std::vector<double> resampled) {
  ESPALIER_CHECK(!resampled.empty());
  std::sort(resampled.begin(), resampled.end());
  const auto at = [&resampled](double share) {
    const double place = share * static_cast<double>(resampled.size() - 1);
    const auto below = static_cast<size_t>(place);
    const size_t above = std::min(below + 1, resampled.size() - 1);
    return resampled[below] + (place - std::floor(place)) * (resampled[above] - resampled[below]);
  };
  return {value, at(0.025), at(0.975)};
}

}  // namespace espalier
