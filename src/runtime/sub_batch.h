// From a run of batch tokens to the rows each block computes, and to the graph's inputs.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "runtime/engine.h"
#include "runtime/graph.h"
#include "runtime/kv_cache.h"
#include "runtime/sequences.h"

namespace espalier {

// A token with its place.
struct PlacedToken {
  int32_t token = 0;
  SequenceId sequence = 0;
  int32_t position = 0;
  int64_t cell = 0;
  bool want_logits = false;
};

// The rows that blocks run on: subsets[0] are all rows, block_rows[b] numbers the subset of block b or is kNoRows.
struct RowPlan {
  std::vector<int> block_rows;
  std::vector<std::vector<int32_t>> subsets;

  bool mixed() const { return subsets.size() > 1; }
};

// `sequences[i]` is the sequence of token i; `resident(block)` says whether a block's weights are there.
RowPlan PlanRows(std::span<const Sequence* const> sequences, int n_block, const std::function<bool(BlockId)>& resident);

// When attention is packed (AttentionGroup).
struct HeadPacking {
  int64_t heads_per_key = 1;  // 1: never
  int64_t max_rows = 0;       // rows of masks in one graph: the memory of a graph is measured for so many

  // Shorter reaches take little time in any case, and have libllama's bits.
  static constexpr int64_t kLeastCells = 1024;
  static constexpr int64_t kTileRows = 64;  // of ggml's CPU kernel
};

// The rows of each subset as groups: neighbouring rows of one sequence, and neighbouring slots with as many rows each
// and not too different lengths.
std::vector<std::vector<AttentionGroup>> GroupRows(std::span<const PlacedToken> tokens, const RowPlan& rows,
                                                   const KvCache& kv, const HeadPacking& packing = {});
// Sets all inputs of `graph` for these tokens. output_rows: BatchShape::n_output of them.
void FillInputs(const Graph& graph, std::span<const PlacedToken> tokens, const RowPlan& rows,
                std::span<const int32_t> output_rows);

}  // namespace espalier
