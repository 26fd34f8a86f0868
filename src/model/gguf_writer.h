// Writing GGUF: the header through ggml's own writer, so that any stock reader takes it; the tensors' data behind it.
#pragma once

#include <ggml.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/status.h"
#include "model/gguf_file.h"

struct gguf_context;

namespace espalier {

// What tensors' data is aligned to in files we write.
inline constexpr uint64_t kGgufAlignment = 32;

// Metadata and tensor table of a GGUF file. Keys and tensors are written in the order they were set in; a key that is
// set again moves to the end. REQUIRES, everywhere: names shorter than GGML_MAX_NAME, tensors' each once; text without
// NUL.
class GgufHeader {
 public:
  GgufHeader();

  void SetText(const std::string& key, const std::string& value);
  void SetTexts(const std::string& key, std::span<const std::string> values);
  void SetUint32(const std::string& key, uint32_t value);
  void SetUint64(const std::string& key, uint64_t value);
  void SetInt64(const std::string& key, int64_t value);
  void SetFloat(const std::string& key, float value);
  void SetFloats(const std::string& key, std::span<const float> values);
  void SetInt32s(const std::string& key, std::span<const int32_t> values);

  // A value of another file, of the type it has there; a key that was set before is replaced.
  // kUnsupported, naming the key, for what the writer cannot hold: text with NUL in it, integers of more than 53 bits
  // in an array.
  Status Set(const std::string& key, const GgufEntry& entry);

  // `ne`: 1 to 4 extents, the contiguous one first, none of them 0.
  void AddTensor(const std::string& name, ggml_type type, std::span<const int64_t> ne);

  // What the file begins with, padded to where the first tensor's data starts.
  std::vector<std::byte> Bytes() const;

 private:
  struct Free {
    void operator()(gguf_context* gguf) const;
  };
  std::unique_ptr<gguf_context, Free> gguf_;
};

// Pads what `writer` holds to kGgufAlignment: to be called behind each tensor's data.
Status PadTensor(AtomicFileWriter& writer);

}  // namespace espalier
