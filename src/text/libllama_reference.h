// libllama running the whole model: the oracle that tests compare logits with, and the peer that benchmarks alternate
// with. Nothing that serves a user goes through here.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"

namespace espalier {

struct LibllamaOptions {
  int64_t n_ctx = 0;   // KV cells over all sequences; 0: the model's training context. Rounded up to 256
  int n_ubatch = 512;  // tokens of one graph at most; also the logical batch, so nothing is split twice
  int n_sequences = 1;
  bool unified_kv = true;        // all sequences in one run of cells, as in our engine; llama-perplexity has false
  int n_threads = 0;             // 0: as many as the machine has cores
  bool repack = true;            // use_extra_bufts: let the backend rewrite weights for its kernels
  bool flash_attention = true;   // as in our graph, where attention is computed in f16; false: in f32
  bool all_logits = true;        // false: no more than one row per sequence and batch will be asked for (saves memory)
  std::string device = "";       // ggml's name; empty: the CPU alone
  std::string key_type = "f16";  // ggml's name; with flash attention every type that it supports
  std::string value_type = "f16";
};

struct LibllamaToken {
  int32_t token = 0;
  int32_t sequence = 0;
  bool want_logits = false;
};

// Thread rule: one thread at a time.
class LibllamaReference {
 public:
  static Result<std::unique_ptr<LibllamaReference>> Open(const std::string& path, const LibllamaOptions& options);
  ~LibllamaReference();
  LibllamaReference(const LibllamaReference&) = delete;
  LibllamaReference& operator=(const LibllamaReference&) = delete;

  // Runs the tokens, each appended to its sequence. Returns the logits of those that want them, in batch order,
  // [rows][n_vocab], valid until the next call. With unified_kv every n_ubatch tokens make one graph, in the order
  // given; without, libllama takes equally many tokens of each sequence.
  // Fails with kOutOfBudget when the KV cells do not suffice.
  Result<std::span<const float>> Decode(std::span<const LibllamaToken> batch);
  // Tokens of sequence 0, with the logits of all of them or of the last.
  Result<std::span<const float>> Decode(std::span<const int32_t> tokens, bool all_logits);

  // Forgets all sequences / the tokens of one from `length` on.
  void ClearMemory();
  void TruncateSequence(int32_t sequence, int64_t length);
  // Waits until everything asked for is computed; Decode with wanted logits has waited already.
  void Synchronize();

  int32_t n_vocab() const { return n_vocab_; }
  int64_t n_ctx() const;

 private:
  struct Native;
  LibllamaReference(std::unique_ptr<Native> native, const LibllamaOptions& options);
  Status DecodePart(std::span<const LibllamaToken> part);

  std::unique_ptr<Native> native_;
  LibllamaOptions options_;
  int32_t n_vocab_ = 0;
  std::vector<float> rows_;  // only used when a batch is longer than n_ubatch
};

}  // namespace espalier
