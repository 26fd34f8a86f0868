// Single blocks on whole windows of text, outside any sequence: the work horse of measuring many plans.
//
// A window starts a text of its own, so the keys and values of a block are needed only while that block runs: one
// layer's KV serves all blocks, and the activations between blocks are plain arrays that the caller keeps, shares and
// goes on from. Dropping block b changes nothing before b: its runs can start from the activations in front of b.
// Blocks, KV types and kernels are the engine's, and so are the results: running the kept blocks of a plan one after
// the other and then the head gives the logits that Engine::Decode gives for the window as one sub-batch under that
// plan, bit for bit on the CPU.
//
// After an error the contents of `out` are unspecified; the runner can be used again.
// Thread rule: one thread at a time, except RequestAbort.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "model/block.h"
#include "model/model.h"
#include "runtime/engine.h"
#include "runtime/head_rows.h"

namespace espalier {

class BlockRunner {
 public:
  // Window length = options.n_ubatch tokens at most; n_ctx and means are ignored. `max_resident_blocks` 0: all blocks
  // are loaded now; n: no more than n at any time, loaded when needed, the least recently used making room (1: a model
  // that does not fit can still be measured, block by block).
  static Result<std::unique_ptr<BlockRunner>> Create(std::shared_ptr<const Model> model, const EngineOptions& options,
                                                     int max_resident_blocks = 0);
  virtual ~BlockRunner() = default;

  virtual const Model& model() const = 0;
  virtual const EngineOptions& options() const = 0;

  // Embeddings of `tokens`: hidden is [tokens.size()][n_embd].
  virtual Status Embed(std::span<const int32_t> tokens, std::span<float> hidden) = 0;
  // out = in + block(in), both [n_tokens][n_embd], positions 0 ... n_tokens - 1 of one text. `in` and `out` may be the
  // same memory. A dropped block is not the runner's business: the caller leaves it out, or adds its mean.
  virtual Status Run(BlockId block, std::span<const float> in, std::span<float> out) = 0;
  // Several blocks in a row, in one graph: the same result as Run one after the other, with less copying.
  // With max_resident_blocks, falls back to one after the other.
  virtual Status RunAll(std::span<const BlockId> blocks, std::span<const float> in, std::span<float> out) = 0;
  // Final norm and output head on rows of `hidden` ([n_rows][n_embd]); rows come in order, head_rows at a time.
  virtual Status Head(std::span<const float> hidden, const LogitsSink& sink) = 0;
  // What the head multiplies with: the final norm of `hidden`, both [n_rows][n_embd], n_ubatch rows at most.
  virtual Status FinalNorm(std::span<const float> hidden, std::span<float> normed) = 0;
  // The head's matrix row by row; nullptr where it cannot be read so. Lives as long as the runner.
  virtual const HeadRows* head_rows() const = 0;

  // Multiply-adds times two of one block, or of the head, for `n_tokens` tokens of a window, attention's
  // score and value products included (all n_tokens^2 pairs; norms, rope and rotations are not counted).
  virtual double BlockFlops(BlockId block, int64_t n_tokens) const = 0;
  virtual double HeadFlops(int64_t n_tokens) const = 0;

  // Bytes of block weights loaded so far, reloads included: what one-block-at-a-time costs in reading.
  virtual uint64_t loaded_bytes() const = 0;
  // The most bytes held at once: weights, staging while they are loaded, KV and compute buffers.
  virtual uint64_t peak_bytes() const = 0;

  // Makes a running or the next call stop soon with kAborted.
  virtual void RequestAbort() = 0;
};

}  // namespace espalier
