// A llama model small enough to write down, with random weights, for comparing with libllama what no converter makes.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "support/gguf_bytes.h"

namespace espalier::test {

// Two layers, width 64, 4 heads of 16 over 2 KV heads.
inline GgufBytes TwoLayerLlama() {
  constexpr int kVocabulary = 40;
  GgufBytes file = TinyLlama();
  file.Set("llama.context_length", U32(512));
  file.Set("llama.embedding_length", U32(64));
  file.Set("llama.feed_forward_length", U32(96));
  file.Set("llama.block_count", U32(2));
  file.Set("llama.attention.head_count", U32(4));
  file.Set("llama.attention.head_count_kv", U32(2));
  file.Set("llama.rope.dimension_count", U32(16));
  std::vector<std::string> tokens;
  for (int i = 0; i < kVocabulary; ++i) {
    tokens.push_back("t" + std::to_string(i));
  }
  file.Set("tokenizer.ggml.tokens", Strings(tokens));
  file.Remove("tokenizer.ggml.scores");
  file.Remove("tokenizer.ggml.token_type");
  file.tensors.clear();
  const auto add = [&](const std::string& name, std::vector<int64_t> ne) { file.Tensor(name).ne = std::move(ne); };
  add("token_embd.weight", {64, kVocabulary});
  add("output_norm.weight", {64});
  add("output.weight", {64, kVocabulary});
  for (const std::string block : {"blk.0.", "blk.1."}) {
    add(block + "attn_norm.weight", {64});
    add(block + "attn_q.weight", {64, 64});
    add(block + "attn_k.weight", {64, 32});
    add(block + "attn_v.weight", {64, 32});
    add(block + "attn_output.weight", {64, 64});
    add(block + "ffn_norm.weight", {64});
    add(block + "ffn_gate.weight", {64, 96});
    add(block + "ffn_up.weight", {64, 96});
    add(block + "ffn_down.weight", {96, 64});
  }
  return file;
}

// Element `i` of a tensor; nullopt: a random one.
using GivenElement = std::function<std::optional<float>(const RawTensor& tensor, uint64_t i)>;

// The file with numbers from -0.5 to 0.5 in every tensor, norms and frequency factors around 1, the same in every file
// that has the tensor; except where `given` says otherwise. All tensors must be f32.
inline std::string WithRandomData(const GgufBytes& file, const GivenElement& given = {}) {
  std::string bytes = file.Metadata();
  for (const RawTensor& tensor : file.tensors) {
    const bool around_one = tensor.name.find("norm") != std::string::npos || tensor.name == "rope_freqs.weight";
    uint32_t state = 7;
    for (const char c : tensor.name) {
      state = state * 31 + static_cast<uint32_t>(c);
    }
    std::string data;
    for (uint64_t i = 0; i < tensor.bytes() / sizeof(float); ++i) {
      state = state * 1664525U + 1013904223U;
      const float random = static_cast<float>(state >> 8) / 16777216.0f - 0.5f + (around_one ? 1.0f : 0.0f);
      data += Raw(given ? given(tensor, i).value_or(random) : random);
    }
    data.resize(file.Padded(data.size()));
    bytes += data;
  }
  return bytes;
}

}  // namespace espalier::test
