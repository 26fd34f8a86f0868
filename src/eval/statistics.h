// Means with their errors, and percentiles: llama-perplexity's formulas, so that figures can be compared digit by
// digit.
#pragma once

#include <cstdint>
#include <span>

namespace espalier {

// A figure and its standard error.
struct Estimate {
  double value = 0;
  double error = 0;
};

// Sums of one quantity over tokens (taken as independent: dependence inside a window is not in the error).
class Moments {
 public:
  void Add(double x) {
    sum_ += x;
    sum_of_squares_ += x * x;
    ++count_;
  }
  int64_t count() const { return count_; }
  double mean() const { return count_ > 0 ? sum_ / static_cast<double>(count_) : 0; }
  // sqrt((E[x^2] - E[x]^2) / (count - 1)); 0 below 2 samples.
  double mean_error() const;
  Estimate estimate() const { return {mean(), mean_error()}; }

 private:
  double sum_ = 0;
  double sum_of_squares_ = 0;
  int64_t count_ = 0;
};

// exp of a mean negative log-likelihood, the error carried through.
Estimate PerplexityOf(Estimate mean_nll);

// Root of a mean square, the error carried through.
Estimate RootOf(Estimate mean_square);

// Share of `hits` among `count`, with its binomial error.
Estimate ShareOf(int64_t hits, int64_t count);

// Linear interpolation at fraction * (n - 1). REQUIRES: sorted ascending, not empty; fraction in [0, 1].
double Percentile(std::span<const float> sorted, double fraction);

}  // namespace espalier
