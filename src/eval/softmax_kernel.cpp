#include "eval/softmax_kernel.h"

#include <algorithm>
#include <bit>
#include <cstddef>

// One copy of the loop per instruction set, chosen when the program is loaded (GNU ifunc). Sanitizers cannot follow a
// function that is resolved before they are set up.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define ESPALIER_VECTORISED \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), optimize("O3")))
#else
#define ESPALIER_VECTORISED
#endif

namespace espalier {
namespace {

constexpr size_t kLanes = 32;   // independent sums: what lets the compiler vectorise without reordering one sum
constexpr size_t kChunk = 512;  // terms of a float sum
constexpr float kSmallest = -87.0F;

// exp(x) for x <= 0: 2^n * e^r with |r| <= ln(2) / 2, e^r by its Taylor polynomial of degree 6 in Horner's form.
inline float ExponentialOf(float x) {
  const float clamped = std::max(x, kSmallest);
  constexpr float kRounding = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const float shifted = clamped * 1.44269504F + kRounding;
  const float n = shifted - kRounding;
  const float r = (clamped - n * 0.693359375F) + n * 2.12194440e-4F;  // ln(2) in two parts
  float p = 1.0F / 720.0F;
  p = p * r + 1.0F / 120.0F;
  p = p * r + 1.0F / 24.0F;
  p = p * r + 1.0F / 6.0F;
  p = p * r + 0.5F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  const int32_t exponent = std::bit_cast<int32_t>(shifted) << 23;
  const float value = std::bit_cast<float>(std::bit_cast<int32_t>(p) + exponent);
  return x < kSmallest ? 0.0F : value;
}

ESPALIER_VECTORISED float MaxOfVectorised(const float* values, size_t n) {
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, values[0]);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] = values[i + lane] > lanes[lane] ? values[i + lane] : lanes[lane];
    }
  }
  for (; i < n; ++i) {
    lanes[0] = std::max(lanes[0], values[i]);
  }
  return *std::max_element(lanes, lanes + kLanes);
}

ESPALIER_VECTORISED void ExponentialsVectorised(const float* logits, float shift, float* out, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    out[i] = ExponentialOf(logits[i] - shift);
  }
}

ESPALIER_VECTORISED ShiftedSums SumChunk(const float* logits, float shift, const uint16_t* weights, size_t n) {
  float exponentials[kLanes] = {};
  float weighted[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const float u = logits[i + lane] - shift;
      exponentials[lane] += ExponentialOf(u);
      weighted[lane] += FromBfloat16(weights[i + lane]) * u;
    }
  }
  for (; i < n; ++i) {
    const float u = logits[i] - shift;
    exponentials[0] += ExponentialOf(u);
    weighted[0] += FromBfloat16(weights[i]) * u;
  }
  ShiftedSums sums;
  for (size_t lane = 0; lane < kLanes; ++lane) {
    sums.exponentials += static_cast<double>(exponentials[lane]);
    sums.weighted += static_cast<double>(weighted[lane]);
  }
  return sums;
}

}  // namespace

float MaxOf(std::span<const float> values) { return MaxOfVectorised(values.data(), values.size()); }

void ExponentialsOf(std::span<const float> logits, float shift, std::span<float> out) {
  ExponentialsVectorised(logits.data(), shift, out.data(), logits.size());
}

ShiftedSums SumShifted(std::span<const float> logits, float shift, std::span<const uint16_t> weights) {
  ShiftedSums total;
  for (size_t first = 0; first < logits.size(); first += kChunk) {
    const size_t n = std::min(kChunk, logits.size() - first);
    const ShiftedSums sums = SumChunk(logits.data() + first, shift, weights.data() + first, n);
    total.exponentials += sums.exponentials;
    total.weighted += sums.weighted;
  }
  return total;
}

}  // namespace espalier
