// The engine: runs a model whose blocks come and go, several sequences at a time, through ggml's public API.
//
// What happens when blocks come and go (the KV side is told in full in runtime/kv_cache.h):
//  * FFN blocks have no state: they leave and return between any two calls of Decode.
//  * An attention block that leaves frees its KV at once. When it returns it serves new sequences at once; a running
//    sequence skips it until Reprefill(sequence) has computed the missing rows. Rows of other layers stay as they were
//    computed under the plan of their time.
//
// Memory: every byte held for the model is in MemoryInUse(); PredictFootprint(memory_model(), plan, workload) foretells
// it. Compute buffers are reserved and committed at Create, so a later call cannot run out of them.
//
// Thread rule: one thread at a time, except RequestAbort, which any thread may call.
// Errors leave the engine as it was, unless a function says otherwise.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/block_means.h"
#include "model/footprint.h"
#include "model/model.h"
#include "model/plan.h"
#include "model/workload.h"

namespace espalier {

enum class KvType : uint8_t { kF16, kQ8_0, kQ4_0 };
Result<KvType> ParseKvType(std::string_view name);  // "f16", "q8_0", "q4_0"
const char* KvTypeName(KvType type);

struct EngineOptions {
  // Device by ggml's name ("CPU", "RPC0[127.0.0.1:50052]", "CUDA0"); empty: the CPU.
  std::string device;
  int n_threads = 0;  // 0: as many as the machine has cores
  int64_t n_ctx = 0;  // KV cells over all sequences; 0: the model's training context
  // Sequences that hold cells at once, at most; 0: 64 on the host, where each may use all cells and one more costs
  // addresses and little else, and 1 on a device with memory of its own, which shares its cells evenly among them.
  int max_sequences = 0;
  // Cells of one sequence at most; 0: all of them. On the host it bounds the addresses that a sequence needs.
  int64_t max_sequence_cells = 0;
  int n_ubatch = 512;  // tokens of one graph at most; longer batches are split
  int head_rows = 64;  // rows of logits computed at once at most: bounds the largest buffer
  KvType key_type = KvType::kF16;
  KvType value_type = KvType::kF16;
  bool repack = true;  // let the backend rewrite weights for its kernels (llama.cpp: use_extra_bufts)
  // Give tied models a rewritten copy of the embedding as output head, as libllama does (runtime/weights.h).
  bool copy_tied_head = false;
  bool drop_page_cache = false;  // forget file pages once read: no second copy, but a restore reads from disk
  // Mean ablation: what a token that skips a block (not resident, outside its sequence's plan, rows missing) gets added
  // instead of nothing; nullptr: nothing. Counted in global_bytes. REQUIRES: means of this model's shape.
  std::shared_ptr<const BlockMeans> means;
};

using SequenceId = int32_t;

struct BatchToken {
  int32_t token = 0;
  SequenceId sequence = 0;
  bool want_logits = false;
};

// Receives logits rows: `row` counts the wanted tokens of the batch in order from 0; `logits` has n_vocab floats,
// valid during the call only.
using LogitsSink = std::function<void(int64_t row, std::span<const float> logits)>;

// What is held for the model right now, in bytes. `total()` is managed_bytes of docs/vocabulary.
struct MemoryInUse {
  uint64_t weight_bytes = 0;
  uint64_t kv_bytes = 0;       // committed pages
  uint64_t compute_bytes = 0;  // graph buffer + backend scratch + host-side buffers
  uint64_t staging_bytes = 0;  // only during a transition
  uint64_t total() const { return weight_bytes + kv_bytes + compute_bytes + staging_bytes; }
};

// One change of residency.
struct Transition {
  int n_released = 0;
  int n_loaded = 0;
  uint64_t released_bytes = 0;  // weights and KV given back
  uint64_t loaded_bytes = 0;    // weights brought in
  uint64_t peak_bytes = 0;      // managed bytes at the worst moment, staging included
  double release_ms = 0;
  double load_ms = 0;
};

struct DecodeStatistics {
  int64_t graphs_built = 0;
  int64_t graphs_reused = 0;
  double build_ms = 0;  // graph construction and allocation
  double input_ms = 0;  // masks, positions, indices
  double compute_ms = 0;
};

class Engine {
 public:
  // Loads the blocks of `plan` (and the globals). Fails with kUnsupported if the device lacks an operation, and with
  // kInvalidArgument on options out of range. `plan` must keep blocks whole or drop them (structured width is not
  // something this runtime can do yet: kUnsupported).
  static Result<std::unique_ptr<Engine>> Create(std::shared_ptr<const Model> model, const EngineOptions& options,
                                                const Plan& plan);
  virtual ~Engine() = default;

  virtual const Model& model() const = 0;
  virtual const EngineOptions& options() const = 0;  // with defaults filled in
  virtual const MemoryModel& memory_model() const = 0;

  // --- residency
  virtual const Plan& plan() const = 0;
  // Makes residency match `plan`: releases first, then loads, so that the peak is never above the larger of both plus
  // staging. If a load fails (I/O error, memory), the blocks loaded so far stay, plan() says which, and the error
  // names the block.
  virtual Result<Transition> Apply(const Plan& plan) = 0;
  virtual MemoryInUse memory_in_use() const = 0;  // a few hundred additions: cheap enough for every token
  // Page cache that the model file holds beside that; the kernel can take it back. Walks the file's pages (10 ms for
  // 4 GB): for reports, not for every token.
  virtual uint64_t reclaimable_bytes() const = 0;

  // --- sequences
  // Runs the tokens, each appended to its sequence (which begins with its first token), and hands out the logits of
  // those that want them. Tokens of several sequences may be mixed in any order. On error no token of the batch that
  // had not been computed stays in its sequence; kAborted leaves those of finished sub-batches.
  // Fails with kOutOfBudget if the KV cells do not suffice or there are too many sequences, naming wanted and free.
  // What a sequence computes does not depend on which others there are, except for the rounding of matrix products of
  // different shape.
  virtual Status Decode(std::span<const BatchToken> batch, const LogitsSink& sink) = 0;
  virtual int64_t SequenceLength(SequenceId sequence) const = 0;
  // Forgets the sequence; its cells' memory goes back to the system. No-op for an unknown one.
  virtual void RemoveSequence(SequenceId sequence) = 0;
  // Keeps the first `length` tokens.
  virtual void TruncateSequence(SequenceId sequence, int64_t length) = 0;
  // Restricts what the sequence computes to the blocks that `plan` keeps, of those resident. REQUIRES: an empty or
  // unknown sequence. Attention blocks outside the plan write no rows for it.
  virtual Status SetSequencePlan(SequenceId sequence, const Plan& plan) = 0;
  // Resident attention blocks that the sequence has to skip because rows are missing there.
  virtual std::vector<BlockId> SkippedBlocks(SequenceId sequence) const = 0;
  // Recomputes all rows of the sequence under the resident plan (and its own): afterwards it skips nothing, exactly as
  // if it had been prefilled now. Costs the prefill of SequenceLength tokens. If aborted, the sequence is removed.
  virtual Status Reprefill(SequenceId sequence) = 0;

  // Used KV cells over all sequences, and the cache's capacity.
  virtual int64_t used_cells() const = 0;
  virtual int64_t capacity_cells() const = 0;

  // Makes a running or the next Decode stop soon with kAborted (checked after each graph node).
  virtual void RequestAbort() = 0;

  virtual const DecodeStatistics& statistics() const = 0;
};

// The byte figures of `model` under `options`, without loading any weights: what `espalier memory` prints.
// Opens the device and measures the graph with size-only calls.
Result<MemoryModel> MeasureMemoryModel(std::shared_ptr<const Model> model, const EngineOptions& options);

}  // namespace espalier
