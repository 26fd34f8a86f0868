// Paired bootstrap over windows: how sure a loss, or a ratio of two losses, is. Windows are drawn with replacement, and
// the same draws serve every plan, so what windows have in common (an easy page, a hard one) cancels in a ratio.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace espalier {

// A figure and its 95 % interval (percentile method).
struct Interval {
  double value = 0;
  double low = 0;
  double high = 0;

  friend bool operator==(const Interval&, const Interval&) = default;
};

class WindowBootstrap {
 public:
  // The draws depend on nothing but these three: figures can be reproduced. REQUIRES: all above 0.
  WindowBootstrap(int64_t n_windows, int n_resamples, uint64_t seed);

  int n_resamples() const { return static_cast<int>(counts_.size()); }

  // The mean over windows in each resample. REQUIRES: one value for each window.
  std::vector<double> Means(std::span<const double> by_window) const;

  // `value` with the 2.5 and 97.5 percentiles of `resampled`. REQUIRES: `resampled` is not empty.
  static Interval IntervalOf(double value, std::vector<double> resampled);

 private:
  std::vector<std::vector<uint32_t>> counts_;  // [resample][window]: how often the window was drawn
};

}  // namespace espalier
