// The two loops over a vocabulary that every comparison of predictions runs: vectorised for the processor at hand,
// since they stand between the output head and everything that searches.
#pragma once

#include <bit>
#include <cstdint>
#include <span>

namespace espalier {

inline float FromBfloat16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

float MaxOf(std::span<const float> values);

// Sums over a row z of logits shifted by `shift` (its maximum, so that every exponent is <= 0).
struct ShiftedSums {
  double exponentials = 0;  // sum exp(z - shift)
  double weighted = 0;      // sum w * (z - shift), w the bfloat16 weights
};

// REQUIRES: weights.size() == logits.size(). Exponentials are accurate to 3e-7 of themselves; below -87 they count as
// nothing. Partial sums of 512 terms are floats, their total is a double.
ShiftedSums SumShifted(std::span<const float> logits, float shift, std::span<const uint16_t> weights);

// out[i] = exp(logits[i] - shift). REQUIRES: equal sizes.
void ExponentialsOf(std::span<const float> logits, float shift, std::span<float> out);

}  // namespace espalier
