#include "eval/dense_predictions.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "eval/softmax_kernel.h"

namespace espalier {
namespace {

// Rounds to the nearest; ties away from zero (there is no bias that matters in 8 bits of a positive number).
uint16_t ToBfloat16(float value) { return static_cast<uint16_t>((std::bit_cast<uint32_t>(value) + 0x8000U) >> 16); }

}  // namespace

DensePredictions::DensePredictions(int64_t n_rows, int64_t n_vocab)
    : n_vocab_(n_vocab), probabilities_(static_cast<size_t>(n_rows * n_vocab)), scales_(static_cast<size_t>(n_rows)) {}

bool DensePredictions::Keep(int64_t row, std::span<const float> logits) {
  const auto n = static_cast<size_t>(n_vocab_);
  const float max = MaxOf(logits);
  std::vector<float> exponentials(n);
  ExponentialsOf(logits, max, exponentials);
  double total = 0;
  for (const float value : exponentials) {
    total += static_cast<double>(value);
  }
  if (!std::isfinite(total) || total <= 0) {
    return false;
  }
  uint16_t* const out = probabilities_.data() + static_cast<size_t>(row) * n;
  RowScale& scale = scales_[static_cast<size_t>(row)];
  scale = {};
  double sum_p_ln_p = 0;
  for (size_t i = 0; i < n; ++i) {
    out[i] = ToBfloat16(static_cast<float>(static_cast<double>(exponentials[i]) / total));
    const auto p = static_cast<double>(FromBfloat16(out[i]));
    scale.sum += p;
    sum_p_ln_p += p > 0 ? p * std::log(p) : 0;
  }
  scale.negative_entropy = sum_p_ln_p / scale.sum - std::log(scale.sum);
  return true;
}

WindowLoss DensePredictions::Compare(int64_t row, std::span<const float> logits, int32_t target) const {
  const auto n = static_cast<size_t>(n_vocab_);
  const RowScale& scale = scales_[static_cast<size_t>(row)];
  const float max = MaxOf(logits);
  const ShiftedSums sums = SumShifted(logits, max, std::span(probabilities_).subspan(static_cast<size_t>(row) * n, n));
  const double log_sum = std::log(sums.exponentials);
  WindowLoss loss;
  loss.kl = scale.negative_entropy + log_sum - sums.weighted / scale.sum;
  // Rounding may leave equal distributions a hair below zero; what is not a number must stay so.
  loss.kl = loss.kl < 0 ? 0 : loss.kl;
  loss.nll = log_sum - (static_cast<double>(logits[static_cast<size_t>(target)]) - static_cast<double>(max));
  if (!std::isfinite(sums.exponentials)) {
    loss.kl = std::numeric_limits<double>::quiet_NaN();
  }
  return loss;
}

void DensePredictions::Probabilities(int64_t row, std::span<float> out) const {
  const uint16_t* const kept = probabilities_.data() + static_cast<size_t>(row) * static_cast<size_t>(n_vocab_);
  const double sum = scales_[static_cast<size_t>(row)].sum;
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = static_cast<float>(static_cast<double>(FromBfloat16(kept[i])) / sum);
  }
}

}  // namespace espalier
