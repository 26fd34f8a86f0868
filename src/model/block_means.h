// Mean ablation: what a block that is not there adds to the residual stream instead of nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/block.h"

namespace espalier {

// What a dropped block adds.
enum class Ablation : uint8_t {
  kZero,  // nothing
  kMean,  // its mean output over calibration text, in the dense model
};
const char* AblationName(Ablation ablation);  // "zero", "mean"
Result<Ablation> ParseAblation(std::string_view name);

// The mean output of every block over all positions of calibration text.
struct BlockMeans {
  int64_t n_embd = 0;
  std::vector<float> values;  // [n_block][n_embd]

  bool empty() const { return values.empty(); }
  std::span<const float> of(BlockId block) const {
    return std::span(values).subspan(static_cast<size_t>(block.index * n_embd), static_cast<size_t>(n_embd));
  }
  friend bool operator==(const BlockMeans&, const BlockMeans&) = default;
};

}  // namespace espalier
