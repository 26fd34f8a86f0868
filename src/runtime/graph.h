// The compute graph of one sub-batch: which blocks run, on which rows, and what comes out. Written once for all
// architectures, over tensor roles (model/architecture.h): an optional tensor that a model lacks adds no node.
//
// Nodes and their order follow libllama's for the same model, so that logits are bit-identical at equal batch shape.
#pragma once

#include <ggml-alloc.h>
#include <ggml.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "model/architecture.h"
#include "runtime/kv_cache.h"
#include "runtime/weights.h"

namespace espalier {

// Which rows (tokens) of a sub-batch a block runs on.
inline constexpr int kNoRows = -1;  // the block is not in the graph
inline constexpr int kAllRows = 0;  // every token
                                    // n > 0: row subset n, gathered before the block and scattered after it

// Rows whose attention is one node: `n_streams` sequences in neighbouring slots, `n_rows` tokens of each.
//
// Packed: the query heads that share keys stand as rows below one another. Kernels compute 64 and more rows in tiles,
// which is several times as fast a cell, and fewer one by one: some tokens with four heads each fill a tile, too.
struct AttentionGroup {
  int64_t first_row = 0;
  int64_t n_rows = 0;
  int64_t n_streams = 0;
  int first_slot = 0;
  int64_t n_kv = 0;     // cells that attention reads of each
  bool packed = false;  // REQUIRES: n_streams == 1; one group of a graph at most

  int64_t end_row() const { return first_row + n_rows * n_streams; }
  friend bool operator==(const AttentionGroup&, const AttentionGroup&) = default;
};

// A set of rows has no more groups than this; the metadata of graphs has room for them.
int MaxAttentionGroups(int max_sequences);

// Everything that determines a graph. Two sub-batches of equal shape under the same residency epoch share one graph.
struct BatchShape {
  int64_t epoch = 0;  // residency epoch: tensors die with their block
  int64_t n_tokens = 0;
  int64_t n_output = 0;         // rows that leave the graph
  bool gathers_output = false;  // in an order of their own, or not all of them (Graph::output_rows says which)
  bool with_head = true;        // logits come out; otherwise the normed hidden rows, for the head to be run in chunks
  std::vector<int> block_rows;  // per block: kNoRows, kAllRows or a subset
  std::vector<int64_t> subset_sizes;                // [0] = n_tokens, [n] = rows of subset n
  std::vector<std::vector<AttentionGroup>> groups;  // of the rows of each subset: all of them, in order

  // Measuring only: as much memory is held all the while beside what the graph needs. Results of attention in groups
  // are no larger together than that of all rows in one piece, but the allocator may find other gaps for them: at worst
  // none, so that they come on top.
  int64_t spare_floats = 0;

  friend bool operator==(const BatchShape&, const BatchShape&) = default;
};

// Input tensors for one set of rows; nullptr (or without a buffer) where no node uses them.
struct RowInputs {
  ggml_tensor* positions = nullptr;  // i32 [n]
  ggml_tensor* cells = nullptr;      // i64 [n]: where K/V rows go
  std::vector<AttentionGroup> groups;
  // By group, f16 [n_kv, n_rows, 1, n_streams]: 0 attends, -inf does not. Packed: a row for each head that shares keys,
  // token by token.
  std::vector<ggml_tensor*> masks;
  ggml_tensor* gather = nullptr;   // i32 [n]: rows of the batch (subsets only)
  ggml_tensor* scatter = nullptr;  // i64 [n]: the same
};

struct Graph {
  ggml_cgraph* graph = nullptr;
  ggml_tensor* tokens = nullptr;       // i32 [n_tokens]
  ggml_tensor* output_rows = nullptr;  // i32 [n_output]; nullptr when all rows come out as they are
  std::vector<RowInputs> rows;         // by subset number
  ggml_tensor* hidden = nullptr;       // f32 [n_embd, n_output], normed; with_head == false
  ggml_tensor* normed = nullptr;       // f32 [n_embd, n_output]; BuildNorm only
  ggml_tensor* logits = nullptr;       // f32 [n_vocab, n_output]; with_head == true
};

// What runs of blocks on a window read (runtime/block_runner.h). The owner allocates and fills it: the allocator of
// graphs leaves tensors that have a buffer alone, so that one window serves many graphs.
struct WindowInputs {
  ggml_tensor* hidden = nullptr;  // f32 [n_embd, n]
  RowInputs rows;                 // positions, cells and mask
};

// Holds the metadata of one graph at a time. Thread rule: the owner's thread only.
class GraphBuilder {
 public:
  enum class Purpose {
    kBody,       // whole sub-batches
    kHead,       // BuildHead only: a smaller arena
    kMeasuring,  // never computed, except for a harmless first node (Device::GrowScratchFor)
  };
  GraphBuilder(const HyperParameters& hparams, Purpose purpose, int max_groups = 1);

  // Forgets the previous graph. `tensors` and `kv` must outlive the graph's use.
  // REQUIRES: blocks that run are in `tensors`, and attention blocks have their planes in `kv`.
  Graph Build(const BatchShape& shape, const ModelTensors& tensors, const KvCache& kv);
  // The output head alone: hidden rows in (Graph::hidden is the input), normed already or not, logits out.
  Graph BuildHead(int64_t n_rows, const ModelTensors& tensors, bool normed = true);
  // The final norm alone: Graph::hidden in, Graph::normed out.
  Graph BuildNorm(int64_t n_rows, const ModelTensors& tensors);
  // The embedding alone: Graph::tokens in, Graph::hidden out.
  Graph BuildEmbedding(int64_t n_tokens, const ModelTensors& tensors);
  // Blocks in a row: window.hidden in, Graph::hidden out, not normed. REQUIRES: as Build.
  Graph BuildBlocks(std::span<const BlockId> blocks, const WindowInputs& window, const ModelTensors& tensors,
                    const KvCache& kv);

  // Bytes of graph metadata held.
  uint64_t metadata_bytes() const { return arena_.size(); }

 private:
  struct Scope;  // the graph under construction

  void Reset();
  Graph BuildBody(const BatchShape& shape, const ModelTensors& tensors, const KvCache& kv);
  ggml_tensor* Input(ggml_type type, int64_t ne0, int64_t ne1 = 1);
  // Marks what leaves the graph and adds all it needs.
  ggml_tensor* Output(ggml_tensor* tensor);
  RowInputs NewRowInputs(int64_t n, const std::vector<AttentionGroup>& groups, bool subset);
  Graph NewBatchInputs(const BatchShape& shape);
  ggml_tensor* Norm(ggml_tensor* x, ggml_tensor* weight);
  ggml_tensor* Project(ggml_tensor* weight, ggml_tensor* bias, ggml_tensor* x);
  // Heads of x times the rotation of stored rows (runtime/kv_cache.h); x itself where there is none.
  ggml_tensor* Rotate(ggml_tensor* x, ggml_tensor* rotation);
  ggml_tensor* Rope(ggml_tensor* x, ggml_tensor* positions, ggml_tensor* factors);
  // Attention of the rows of one group: q is [head_dim, n_head, n], the result [n_head * head_dim, rows of the group].
  ggml_tensor* Attend(const Scope& scope, int il, ggml_tensor* q, const AttentionGroup& group, ggml_tensor* mask);
  ggml_tensor* AttendPacked(const Scope& scope, int il, ggml_tensor* q, const AttentionGroup& group, ggml_tensor* mask);
  // Attention of `rows` [head_dim, rows, heads, n_streams] to the group's cells: [head_dim, heads, rows, n_streams].
  ggml_tensor* AttendToCells(const Scope& scope, int il, ggml_tensor* rows, const AttentionGroup& group,
                             ggml_tensor* mask);
  int64_t heads_per_key() const { return hparams_.n_head / hparams_.n_head_kv; }
  // Of all rows, in order.
  ggml_tensor* AttendAll(const Scope& scope, int il, ggml_tensor* q, const RowInputs& rows);
  // The block's contribution to the residual stream for rows x; nullptr with keys_only, which stops once this block's
  // K/V rows are stored.
  ggml_tensor* AttentionBlock(const Scope& scope, int il, ggml_tensor* x, const RowInputs& rows, bool keys_only);
  ggml_tensor* FfnBlock(const Scope& scope, int il, ggml_tensor* x);
  // in + what the block adds to it; nullptr with keys_only.
  ggml_tensor* Block(const Scope& scope, BlockId block, ggml_tensor* in, const RowInputs& rows, bool keys_only);
  // Rows that do not run through the block: x plus its mean output where the model has means, x itself elsewhere.
  ggml_tensor* Skip(const Scope& scope, BlockId block, ggml_tensor* x);
  ggml_tensor* Head(const ModelTensors& tensors, ggml_tensor* hidden);

  const HyperParameters hparams_;
  const Purpose purpose_;
  const size_t max_nodes_;
  std::vector<std::byte> arena_;
  GgmlContext context_;
  ggml_cgraph* graph_ = nullptr;
};

}  // namespace espalier
