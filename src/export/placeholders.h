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
// They carry the means of dropped blocks. The source's architecture need not have them.
inline constexpr char kAttentionOutputBiasName[] = "attn_output.bias";
inline constexpr char kFfnDownBiasName[] = "ffn_down.bias";
inline constexpr char kFusedAttentionName[] = "attn_qkv.weight";

// One head of zeros. `fused`: of a layer whose q, k and v are one tensor, with norms of queries and keys.
std::vector<PlaceholderTensor> AttentionPlaceholder(const HyperParameters& hparams, bool fused);
std::vector<PlaceholderTensor> FfnPlaceholder(const HyperParameters& hparams);

}  // namespace espalier
