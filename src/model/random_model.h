// Models of random weights, of any shape: for tests of the engine (an oracle needs no meaning) and for measuring speed
// and memory (which do not depend on what the weights say). Quality figures must never come from them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/block.h"

namespace espalier {

struct RandomModelOptions {
  std::string architecture = "llama";
  int n_layer = 4;
  int n_embd = 256;
  int n_ff = 768;
  int n_head = 4;
  int n_head_kv = 0;         // 0: as many as n_head
  int head_dim = 0;          // 0: n_embd / n_head
  int n_vocab = 512;         // at least 260: three special tokens, 256 bytes, one word
  int n_ctx = 4096;          // context length in the metadata
  std::string type = "F16";  // any name that ParseFileType knows; mixes as llama-quantize makes them
  uint64_t seed = 1;
  bool tied_output = false;        // no output.weight
  bool biases = false;             // every bias that the architecture may have: Qwen2 models have them
  bool rope_freq_factors = false;  // rope_freqs.weight and a rope base of 500000, as in Llama 3.2
  std::vector<BlockId> zero;       // blocks whose last matrix (attn_output, ffn_down) is all zeros: they add nothing,
                                   // so libllama on this file is the oracle for dropping them
  int n_threads = 1;
  std::function<void(uint64_t done_bytes, uint64_t total_bytes)> progress;  // called from the calling thread
};

struct RandomModelSummary {
  uint64_t parameters = 0;
  uint64_t file_bytes = 0;
};

// Writes the model to `path`, whole or not at all. Holds a few MiB per thread, whatever the model's size. The file
// depends on the options other than n_threads alone, byte for byte; every weight before quantisation depends only on
// seed, tensor, row and shape, so files that differ in `type` or `zero` start from the same model.
// Activations neither explode nor vanish with depth, and every block changes the result.
// Fails with kInvalidArgument on shapes that are not a model, and with kIo if the file cannot be written.
Result<RandomModelSummary> GenerateRandomModel(const RandomModelOptions& options, const std::string& path);

}  // namespace espalier
