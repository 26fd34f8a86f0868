// GGUF files put together by hand, right or deliberately wrong: the writer checks nothing. Our own bytes, not ggml's
// writer, because ggml would refuse most of what the tests need.
#pragma once

#include <ggml.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"

namespace espalier::test {

template <class T>
std::string Raw(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}
inline std::string RawString(const std::string& text) { return Raw<uint64_t>(text.size()) + text; }

// A metadata value: its type field and the bytes behind it.
struct RawValue {
  uint32_t type;
  std::string bytes;
};
inline RawValue U8(uint8_t v) { return {0, Raw(v)}; }
inline RawValue U16(uint16_t v) { return {2, Raw(v)}; }
inline RawValue U32(uint32_t v) { return {4, Raw(v)}; }
inline RawValue I32(int32_t v) { return {5, Raw(v)}; }
inline RawValue F32(float v) { return {6, Raw(v)}; }
inline RawValue Bool(uint8_t v) { return {7, Raw(v)}; }
inline RawValue Str(const std::string& v) { return {8, RawString(v)}; }
inline RawValue U64(uint64_t v) { return {10, Raw(v)}; }
inline RawValue I64(int64_t v) { return {11, Raw(v)}; }
inline RawValue F64(double v) { return {12, Raw(v)}; }
inline RawValue Array(uint32_t element_type, uint64_t count, const std::string& elements) {
  return {9, Raw(element_type) + Raw(count) + elements};
}
inline RawValue Strings(const std::vector<std::string>& values) {
  std::string elements;
  for (const auto& value : values) {
    elements += RawString(value);
  }
  return Array(8, values.size(), elements);
}
template <class T>
RawValue Numbers(uint32_t element_type, const std::vector<T>& values) {
  std::string elements;
  for (const T value : values) {
    elements += Raw(value);
  }
  return Array(element_type, values.size(), elements);
}
inline RawValue Floats(const std::vector<float>& values) { return Numbers(6, values); }
inline RawValue Ints(const std::vector<int32_t>& values) { return Numbers(5, values); }

struct RawTensor {
  std::string name;
  std::vector<int64_t> ne;
  uint32_t type = GGML_TYPE_F32;
  std::optional<uint64_t> offset;      // where the table says it lies; behind its predecessor if absent
  std::optional<uint32_t> n_dims;      // what the table says; the truth if absent
  std::optional<uint64_t> data_bytes;  // bytes in the file; what type and shape need if absent

  uint64_t bytes() const {
    if (data_bytes) {
      return *data_bytes;
    }
    int64_t rows = 1;
    for (size_t d = 1; d < ne.size(); ++d) {
      rows *= ne[d];
    }
    return ggml_row_size(static_cast<ggml_type>(type), ne[0]) * static_cast<uint64_t>(rows);
  }
};

struct GgufBytes {
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::optional<uint64_t> n_tensors;  // what the header says; the truth if absent
  std::optional<uint64_t> n_entries;
  uint64_t alignment = 32;  // how the data is laid out; the key general.alignment is separate
  std::vector<std::pair<std::string, RawValue>> entries;
  std::vector<RawTensor> tensors;

  // Replaces the key's value where it is, or appends the key.
  void Set(const std::string& key, RawValue value) {
    for (auto& entry : entries) {
      if (entry.first == key) {
        entry.second = std::move(value);
        return;
      }
    }
    entries.emplace_back(key, std::move(value));
  }
  void Remove(const std::string& key) {
    std::erase_if(entries, [&](const auto& entry) { return entry.first == key; });
  }
  RawTensor& Tensor(const std::string& name) {
    for (RawTensor& tensor : tensors) {
      if (tensor.name == name) {
        return tensor;
      }
    }
    tensors.push_back({name, {1}, GGML_TYPE_F32, {}, {}, {}});
    return tensors.back();
  }
  void RemoveTensor(const std::string& name) {
    std::erase_if(tensors, [&](const RawTensor& tensor) { return tensor.name == name; });
  }

  uint64_t Padded(uint64_t bytes) const { return (bytes + alignment - 1) / alignment * alignment; }

  // Header, metadata and tensor table, padded to where the data begins.
  std::string Metadata() const {
    std::string bytes = magic + Raw(version) + Raw<uint64_t>(n_tensors.value_or(tensors.size())) +
                        Raw<uint64_t>(n_entries.value_or(entries.size()));
    for (const auto& [key, value] : entries) {
      bytes += RawString(key) + Raw(value.type) + value.bytes;
    }
    uint64_t end = 0;
    for (const RawTensor& tensor : tensors) {
      bytes += RawString(tensor.name) + Raw(tensor.n_dims.value_or(static_cast<uint32_t>(tensor.ne.size())));
      for (const int64_t extent : tensor.ne) {
        bytes += Raw(extent);
      }
      bytes += Raw(tensor.type) + Raw(tensor.offset.value_or(end));
      end += Padded(tensor.bytes());
    }
    bytes.resize(Padded(bytes.size()));
    return bytes;
  }

  // The whole file; all tensor data is zero.
  std::string Build() const {
    std::string bytes = Metadata();
    uint64_t size = bytes.size();
    for (const RawTensor& tensor : tensors) {
      size += Padded(tensor.bytes());
    }
    bytes.resize(size);
    return bytes;
  }
};

// A file in memory that owns its bytes.
class StringSource final : public ByteSource {
 public:
  explicit StringSource(std::string bytes) : bytes_(std::move(bytes)), memory_(std::as_bytes(std::span(bytes_))) {}
  StringSource(const StringSource&) = delete;
  StringSource& operator=(const StringSource&) = delete;
  const std::string& name() const override { return memory_.name(); }
  uint64_t size() const override { return memory_.size(); }
  Status ReadAt(uint64_t offset, std::span<std::byte> out) const override { return memory_.ReadAt(offset, out); }

 private:
  std::string bytes_;
  MemorySource memory_;
};

inline std::shared_ptr<const ByteSource> Source(std::string bytes) {
  return std::make_shared<StringSource>(std::move(bytes));
}

// A valid llama model of one layer: n_embd 8, 2 heads, 1 KV head of 4, n_ff 16, 4 tokens; under 4 KiB.
inline GgufBytes TinyLlama() {
  GgufBytes file;
  file.entries = {
      {"general.architecture", Str("llama")},
      {"general.name", Str("tiny")},
      {"general.file_type", U32(0)},
      {"llama.context_length", U32(64)},
      {"llama.embedding_length", U32(8)},
      {"llama.block_count", U32(1)},
      {"llama.feed_forward_length", U32(16)},
      {"llama.attention.head_count", U32(2)},
      {"llama.attention.head_count_kv", U32(1)},
      {"llama.attention.layer_norm_rms_epsilon", F32(1e-5f)},
      {"llama.rope.dimension_count", U32(4)},
      {"tokenizer.ggml.model", Str("llama")},
      {"tokenizer.ggml.tokens", Strings({"<unk>", "<s>", "</s>", "a"})},
      {"tokenizer.ggml.scores", Floats({0, -1, -2, -3})},
      {"tokenizer.ggml.token_type", Ints({2, 3, 3, 1})},
      {"tokenizer.ggml.bos_token_id", U32(1)},
      {"tokenizer.ggml.eos_token_id", U32(2)},
  };
  const auto add = [&](const char* name, std::vector<int64_t> ne) {
    file.tensors.push_back({name, ne, 0, {}, {}, {}});
  };
  add("token_embd.weight", {8, 4});
  add("output_norm.weight", {8});
  add("output.weight", {8, 4});
  add("blk.0.attn_norm.weight", {8});
  add("blk.0.attn_q.weight", {8, 8});
  add("blk.0.attn_k.weight", {8, 4});
  add("blk.0.attn_v.weight", {8, 4});
  add("blk.0.attn_output.weight", {8, 8});
  add("blk.0.ffn_norm.weight", {8});
  add("blk.0.ffn_gate.weight", {8, 16});
  add("blk.0.ffn_up.weight", {8, 16});
  add("blk.0.ffn_down.weight", {16, 8});
  return file;
}

}  // namespace espalier::test
