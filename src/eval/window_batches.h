// Windows as batches for the engine: several windows at a time, an equal number of tokens of each in every sub-batch.
// This is how llama-perplexity (n_batch 2048, n_ubatch 512) cuts them; ggml's kernels round differently for other
// batch shapes, so equal figures need equal shapes.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/status.h"
#include "eval/windows.h"
#include "model/workload.h"
#include "runtime/engine.h"

namespace espalier {

// A run of windows that are computed together: [first, first + count).
struct WindowGroup {
  int64_t first = 0;
  int64_t count = 0;
};

// Windows that one group holds: what fits into 2048 tokens in the llama protocol; one in gptq, which has no shape to
// follow (fewer KV cells, and no scan over other windows' cells).
int64_t WindowsPerGroup(Protocol protocol, int64_t window_tokens);

std::vector<WindowGroup> GroupWindows(const Windows& windows);

// What is resident while windows are scored, `sequences_per_window` times over (2 where two plans are compared): size
// the engine's context (EngineOptions::n_ctx) by its kv_cells.
Workload EvalWorkload(Protocol protocol, int64_t window_tokens, int64_t n_windows, int sequences_per_window);

// Fails with kOutOfBudget, naming both numbers, if the engine's KV cells do not suffice for that workload.
Status CheckCapacity(const Engine& engine, const Workload& workload);

// Where a row of logits belongs.
struct RowPlace {
  int64_t window = 0;    // index in the Windows
  int64_t position = 0;  // of the token whose successor the row predicts
};

// One sub-batch: at most n_ubatch tokens.
struct WindowBatch {
  std::vector<BatchToken> tokens;
  std::vector<RowPlace> rows;  // of the tokens that want logits, in order
};

// The sub-batches of `group`; window first + i becomes sequence first_sequence + i. Logits are wanted from the position
// before first_target to the end of the window (the last row predicts nothing that is known; it is there for the
// shape).
std::vector<WindowBatch> CutBatches(const Windows& windows, const WindowGroup& group, int n_ubatch,
                                    SequenceId first_sequence);

// Removes the sequences [first, first + count) from the engine on every way out.
class SequenceGuard {
 public:
  SequenceGuard(Engine* engine, SequenceId first, int64_t count) : engine_(engine), first_(first), count_(count) {}
  ~SequenceGuard();
  SequenceGuard(const SequenceGuard&) = delete;
  SequenceGuard& operator=(const SequenceGuard&) = delete;

 private:
  Engine* engine_;
  SequenceId first_;
  int64_t count_;
};

}  // namespace espalier
