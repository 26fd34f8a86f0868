// A GGUF file's metadata and tensor table, read and validated by our own parser before any other parser (libllama's
// tokenizer, ggml) sees the file. GGUF parsers have a record of heap overflows; here every count, type, length and
// offset is bounded against the file's size in 64-bit arithmetic before memory is allocated for it.
//
// Accepts GGUF v2 and v3, little endian. Spec: github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <ggml.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/file.h"
#include "base/status.h"

namespace espalier {

enum class GgufType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

const char* GgufTypeName(GgufType type);  // "uint8", "string"

// A metadata value. Integers of any width arrive as uint64_t or int64_t; bool as bool; floats as double.
struct GgufArray {
  GgufType element_type = GgufType::kUint8;
  std::vector<std::string> strings;  // kString
  std::vector<double> numbers;       // every other element type; exact below 2^53
  uint64_t size() const { return element_type == GgufType::kString ? strings.size() : numbers.size(); }
};
using GgufValue = std::variant<uint64_t, int64_t, double, bool, std::string, GgufArray>;

struct GgufEntry {
  std::string key;
  GgufType type;
  GgufValue value;
};

struct TensorInfo {
  std::string name;
  ggml_type type = GGML_TYPE_F32;
  int n_dims = 0;
  std::array<int64_t, 4> ne = {1, 1, 1, 1};  // ne[0] is the contiguous dimension, as in ggml
  uint64_t offset = 0;                       // absolute in GgufFile::source()
  uint64_t bytes = 0;                        // of the tensor's data, unpadded
};

// ggml's name of the tensor's type: "f16", "q4_K".
const char* TensorTypeName(const TensorInfo& tensor);

// More than real files hold by far (a few thousand); bounds the work that a hostile one can ask for.
inline constexpr uint64_t kMaxGgufTensors = 16384;

struct GgufParseOptions {
  // Data of tensors may be missing at the end: a file that was cut short still gives its metadata and its table of
  // tensors. TensorInfo's offset + bytes can then lie beyond the end of the file.
  bool may_be_cut = false;
  // The source may be one part of a model in several files: some of the tensors only. Refused otherwise.
  bool may_be_part = false;
};

class GgufFile {
 public:
  // Opens and validates; the file stays open for reading tensor data. The error says which part of the file is wrong.
  // A model in several files (gguf_split.h) is opened by its first: all of them are validated and stay open, one file
  // descriptor each, and are one GgufFile with the first one's metadata and the tensors of all.
  static Result<std::shared_ptr<const GgufFile>> Open(const std::string& path);
  // The same over any source of bytes (tests, fuzzing).
  static Result<std::shared_ptr<const GgufFile>> Parse(std::shared_ptr<const ByteSource> source,
                                                       const GgufParseOptions& options = {});

  const std::string& path() const { return source_->name(); }
  // Of all the model's files, the first of them path(): one, unless the model is in several.
  std::span<const std::string> paths() const { return paths_; }
  // The bytes of all files, one behind the other: what TensorInfo::offset counts in.
  const ByteSource& source() const { return *source_; }
  // These two of the first file.
  uint32_t version() const { return version_; }
  uint32_t alignment() const { return alignment_; }

  std::span<const GgufEntry> entries() const { return entries_; }
  std::span<const TensorInfo> tensors() const { return tensors_; }
  // nullptr when there is none of that name.
  const GgufEntry* FindEntry(std::string_view key) const;
  const TensorInfo* FindTensor(std::string_view name) const;

  // Typed look-ups. The optional is empty if the key is absent; the Result fails if it has another type or is out of
  // the range [lowest, highest] (the message names file, key, expected, found).
  Result<std::optional<int64_t>> FindInteger(std::string_view key, int64_t lowest, int64_t highest) const;
  Result<std::optional<double>> FindNumber(std::string_view key) const;  // finite
  Result<std::optional<std::string>> FindString(std::string_view key) const;
  Result<std::optional<bool>> FindBool(std::string_view key) const;
  // As above, but absence is an error.
  Result<int64_t> Integer(std::string_view key, int64_t lowest, int64_t highest) const;
  Result<double> Number(std::string_view key) const;
  Result<std::string> String(std::string_view key) const;

 private:
  GgufFile() = default;
  friend class GgufParser;
  friend class GgufJoiner;
  static Result<std::shared_ptr<GgufFile>> Read(std::shared_ptr<const ByteSource> source,
                                                const GgufParseOptions& options);
  // Fills tensors_by_name_. Of two tensors of one name the indices, the lower one first; nullopt if there are none.
  std::optional<std::pair<uint32_t, uint32_t>> IndexTensors();

  std::shared_ptr<const ByteSource> source_;
  std::vector<std::string> paths_;
  uint32_t version_ = 0;
  uint32_t alignment_ = 32;
  std::vector<GgufEntry> entries_;
  std::vector<TensorInfo> tensors_;
  std::vector<uint32_t> tensors_by_name_;  // indices into tensors_, sorted by name
  std::vector<uint32_t> entries_by_key_;
};

}  // namespace espalier
