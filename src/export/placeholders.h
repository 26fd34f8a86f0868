// What stands in an exported layer for a half that was dropped and that llama.cpp cannot do without.
#pragma once

#include <cstdint>
#include <vector>

#include "model/architecture.h"

namespace espalier {

// A norm of ones (F32), or a matrix of zeros (F16: K-quants do not fit the widths).
struct PlaceholderTensor {
  const char* name;  // after "blk.<il>."
  int64_t in = 0;
  int64_t out = 0;  // 0: a norm

  bool norm() const { return out == 0; }
  int n_dims() const { return norm() ? 1 : 2; }
  uint64_t bytes() const { return static_cast<uint64_t>(norm() ? 4 * in : 2 * in * out); }
};

// Width of the FFN of a layer that has none: the least that every kernel takes.
inline constexpr int64_t kPlaceholderWidth = 32;
// Carries the means of dropped blocks where no kept block comes before them.
inline constexpr char kAttentionOutputBiasName[] = "attn_output.bias";

// One head of zeros.
std::vector<PlaceholderTensor> AttentionPlaceholder(const HyperParameters& hparams);
std::vector<PlaceholderTensor> FfnPlaceholder(const HyperParameters& hparams);

}  // namespace espalier
