// Blocks: the prunable halves of transformer layers, and the numbers they go by.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace espalier {

enum class BlockKind : uint8_t { kAttention = 0, kFfn = 1 };

// One block: attention `a<il>` or FFN `f<il>` of layer il. Index = 2 * il (+ 1 for FFN), the order of execution.
struct BlockId {
  int index = 0;

  static constexpr BlockId Attention(int layer) { return {2 * layer}; }
  static constexpr BlockId Ffn(int layer) { return {2 * layer + 1}; }

  constexpr int layer() const { return index / 2; }
  constexpr BlockKind kind() const { return static_cast<BlockKind>(index % 2); }
  constexpr bool is_attention() const { return kind() == BlockKind::kAttention; }
  friend constexpr auto operator<=>(BlockId, BlockId) = default;
};

// "a3", "f7".
std::string BlockName(BlockId block);

// The block named by "a3" / "f7" in a model of n_layer layers. The error names the block and the valid range.
Result<BlockId> ParseBlockName(std::string_view name, int n_layer);

}  // namespace espalier
