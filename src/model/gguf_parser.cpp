#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <utility>

#include "model/gguf_file.h"
#include "model/gguf_split.h"
#include "model/quote.h"
#include "model/sequential_reader.h"

namespace espalier {
namespace {

// Generous multiples of what real files hold (about 60 keys, 300 000 tokens, chat templates of 100 KB). Like
// kMaxGgufTensors they bound the work that a hostile file can ask of us, and of ggml's quadratic search for duplicates.
constexpr uint64_t kMaxEntries = 16384;
constexpr uint64_t kMaxArrayElements = uint64_t{1} << 24;
constexpr uint64_t kMaxStringBytes = uint64_t{64} << 20;
constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMaxTensorNameBytes = GGML_MAX_NAME - 1;
constexpr uint32_t kMaxAlignment = uint32_t{1} << 20;
// Keeps the sum over kMaxGgufTensors within 63 bits.
constexpr uint64_t kMaxTensorBytes = uint64_t{1} << 48;

// Bytes of one element in the file; for a string its length field. 0 for unknown types and arrays.
uint64_t ElementBytes(uint32_t type) {
  constexpr std::array<uint8_t, 13> kBytes = {1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8};
  return type < kBytes.size() ? kBytes[type] : 0;
}

}  // namespace

class GgufParser {
 public:
  GgufParser(std::shared_ptr<const ByteSource> source, const GgufParseOptions& options)
      : options_(options), file_(new GgufFile), reader_(*source), name_(source->name()) {
    file_->source_ = std::move(source);
    file_->paths_ = {name_};
  }

  Result<std::shared_ptr<GgufFile>> Parse() {
    ESPALIER_RETURN_IF_ERROR(ReadHeader());
    for (uint64_t i = 0; i < n_entries_; ++i) {
      ESPALIER_RETURN_IF_ERROR(ReadEntry(i));
    }
    ESPALIER_RETURN_IF_ERROR(IndexEntries());
    ESPALIER_RETURN_IF_ERROR(ReadAlignment());
    ESPALIER_RETURN_IF_ERROR(RefusePart());
    for (uint64_t i = 0; i < n_tensors_; ++i) {
      ESPALIER_RETURN_IF_ERROR(ReadTensorInfo(i));
    }
    ESPALIER_RETURN_IF_ERROR(IndexTensors());
    ESPALIER_RETURN_IF_ERROR(PlaceTensors());
    return std::shared_ptr<GgufFile>(std::move(file_));
  }

 private:
  template <class... Args>
  Status Bad(fmt::format_string<Args...> format, Args&&... args) const {
    return Corrupt(fmt::format("{}: {}", name_, fmt::format(format, std::forward<Args>(args)...)));
  }

  // What is read next needs more bytes than are left.
  Status Truncated(const std::string& what, uint64_t least_bytes) const {
    return Bad("truncated: {} needs at least {} bytes at offset {}, found {}", what, least_bytes, reader_.position(),
               reader_.remaining());
  }

  Status ReadHeader();
  Status ReadEntry(uint64_t index);
  Result<GgufValue> ReadScalar(uint32_t type, const std::string& what);
  Result<GgufArray> ReadArray(const std::string& what);
  Result<double> ReadElement(uint32_t type, const std::string& what);
  Status IndexEntries();
  Status ReadAlignment();
  Status RefusePart() const;
  Status ReadTensorInfo(uint64_t index);
  Status ReadShape(TensorInfo& tensor, const std::string& what);
  Status ReadTensorType(TensorInfo& tensor, const std::string& what);
  Status IndexTensors();
  Status PlaceTensors();

  const GgufParseOptions options_;
  std::unique_ptr<GgufFile> file_;
  SequentialReader reader_;
  std::string name_;
  uint64_t n_entries_ = 0;
  uint64_t n_tensors_ = 0;
};

Status GgufParser::ReadHeader() {
  if (file_->source_->size() == 0) {
    return Bad("empty: expected a GGUF file, found 0 bytes");
  }
  std::array<char, 4> magic = {};
  ESPALIER_RETURN_IF_ERROR(reader_.Read(std::as_writable_bytes(std::span(magic)), "the magic"));
  const std::string_view found(magic.data(), magic.size());
  if (found != "GGUF") {
    return Bad("not a GGUF file: expected the magic 'GGUF', found {}", Quote(found));
  }
  ESPALIER_ASSIGN_OR_RETURN(file_->version_, reader_.Number<uint32_t>("the version"));
  if ((file_->version_ & 0xffff) == 0 && file_->version_ != 0) {
    return Unsupported(
        fmt::format("{}: big endian GGUF: expected a little endian file of version 2 or 3, found "
                    "version field {:#010x}",
                    name_, file_->version_));
  }
  if (file_->version_ != 2 && file_->version_ != 3) {
    return Unsupported(fmt::format("{}: GGUF version: expected 2 or 3, found {}", name_, file_->version_));
  }
  ESPALIER_ASSIGN_OR_RETURN(n_tensors_, reader_.Number<uint64_t>("the tensor count"));
  ESPALIER_ASSIGN_OR_RETURN(n_entries_, reader_.Number<uint64_t>("the metadata count"));
  if (n_tensors_ > kMaxGgufTensors) {
    return Bad("tensor count: expected at most {}, found {}", kMaxGgufTensors, n_tensors_);
  }
  if (n_entries_ > kMaxEntries) {
    return Bad("metadata count: expected at most {}, found {}", kMaxEntries, n_entries_);
  }
  // The smallest entry is a key of one byte with a one-byte value, the smallest tensor a name of one byte.
  constexpr uint64_t kLeastEntry = 8 + 1 + 4 + 1;
  constexpr uint64_t kLeastTensor = 8 + 1 + 4 + 8 + 4 + 8;
  const uint64_t least_bytes = n_entries_ * kLeastEntry + n_tensors_ * kLeastTensor;
  if (least_bytes > reader_.remaining()) {
    return Truncated(fmt::format("the table of {} metadata keys and {} tensors", n_entries_, n_tensors_), least_bytes);
  }
  return Status::Ok();
}

Status GgufParser::ReadEntry(uint64_t index) {
  const std::string position = fmt::format("metadata key {} of {}", index + 1, n_entries_);
  ESPALIER_ASSIGN_OR_RETURN(std::string key, reader_.String(1, kMaxKeyBytes, position));
  if (key.find('\0') != std::string::npos) {
    return Bad("{} is {}: expected no NUL byte in it", position, Quote(key));
  }
  const std::string what = "key " + Quote(key);
  ESPALIER_ASSIGN_OR_RETURN(const auto type, reader_.Number<uint32_t>(what));
  if (type > static_cast<uint32_t>(GgufType::kFloat64)) {
    return Bad("{}: expected a value type from 0 to 12, found {}", what, type);
  }
  GgufEntry entry{std::move(key), static_cast<GgufType>(type), {}};
  if (entry.type == GgufType::kArray) {
    ESPALIER_ASSIGN_OR_RETURN(entry.value, ReadArray(what));
  } else {
    ESPALIER_ASSIGN_OR_RETURN(entry.value, ReadScalar(type, what));
  }
  file_->entries_.push_back(std::move(entry));
  return Status::Ok();
}

Result<GgufValue> GgufParser::ReadScalar(uint32_t type, const std::string& what) {
  switch (static_cast<GgufType>(type)) {
    case GgufType::kString: {
      ESPALIER_ASSIGN_OR_RETURN(std::string text, reader_.String(0, kMaxStringBytes, what));
      return GgufValue(std::move(text));
    }
    case GgufType::kUint64: {
      ESPALIER_ASSIGN_OR_RETURN(const auto value, reader_.Number<uint64_t>(what));
      return GgufValue(value);
    }
    case GgufType::kInt64: {
      ESPALIER_ASSIGN_OR_RETURN(const auto value, reader_.Number<int64_t>(what));
      return GgufValue(value);
    }
    default:
      break;
  }
  ESPALIER_ASSIGN_OR_RETURN(const double value, ReadElement(type, what));
  switch (static_cast<GgufType>(type)) {
    case GgufType::kBool:
      return GgufValue(value != 0);
    case GgufType::kFloat32:
    case GgufType::kFloat64:
      return GgufValue(value);
    case GgufType::kUint8:
    case GgufType::kUint16:
    case GgufType::kUint32:
      return GgufValue(static_cast<uint64_t>(value));
    default:
      return GgufValue(static_cast<int64_t>(value));
  }
}

Result<double> GgufParser::ReadElement(uint32_t type, const std::string& what) {
  const auto widen = [&]<class T>(T) -> Result<double> {
    ESPALIER_ASSIGN_OR_RETURN(const T value, reader_.Number<T>(what));
    return static_cast<double>(value);
  };
  switch (static_cast<GgufType>(type)) {
    case GgufType::kUint8:
      return widen(uint8_t{});
    case GgufType::kInt8:
      return widen(int8_t{});
    case GgufType::kUint16:
      return widen(uint16_t{});
    case GgufType::kInt16:
      return widen(int16_t{});
    case GgufType::kUint32:
      return widen(uint32_t{});
    case GgufType::kInt32:
      return widen(int32_t{});
    case GgufType::kUint64:
      return widen(uint64_t{});
    case GgufType::kInt64:
      return widen(int64_t{});
    case GgufType::kFloat32:
      return widen(float{});
    case GgufType::kFloat64:
      return widen(double{});
    default:
      break;
  }
  ESPALIER_ASSIGN_OR_RETURN(const auto value, reader_.Number<uint8_t>(what));
  if (value > 1) {
    return Bad("{}: expected a bool of 0 or 1, found {}", what, value);
  }
  return static_cast<double>(value);
}

Result<GgufArray> GgufParser::ReadArray(const std::string& what) {
  ESPALIER_ASSIGN_OR_RETURN(const auto type, reader_.Number<uint32_t>(what));
  ESPALIER_ASSIGN_OR_RETURN(const auto count, reader_.Number<uint64_t>(what));
  if (type == static_cast<uint32_t>(GgufType::kArray)) {
    return Unsupported(fmt::format("{}: {}: expected an array of plain values, found an array of arrays", name_, what));
  }
  const uint64_t least = ElementBytes(type);
  if (least == 0) {
    return Bad("{}: expected an array element type from 0 to 12, found {}", what, type);
  }
  if (count > kMaxArrayElements) {
    return Bad("{}: array length: expected at most {}, found {}", what, kMaxArrayElements, count);
  }
  if (count * least > reader_.remaining()) {
    return Truncated(fmt::format("the array of {} elements of {}", count, what), count * least);
  }
  GgufArray array;
  array.element_type = static_cast<GgufType>(type);
  if (array.element_type == GgufType::kString) {
    array.strings.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
      ESPALIER_ASSIGN_OR_RETURN(std::string text, reader_.String(0, kMaxStringBytes, what));
      array.strings.push_back(std::move(text));
    }
    return array;
  }
  array.numbers.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    ESPALIER_ASSIGN_OR_RETURN(const double value, ReadElement(type, what));
    array.numbers.push_back(value);
  }
  return array;
}

Status GgufParser::IndexEntries() {
  auto& index = file_->entries_by_key_;
  const auto& entries = file_->entries_;
  index.resize(entries.size());
  std::iota(index.begin(), index.end(), 0);
  std::sort(index.begin(), index.end(), [&](uint32_t a, uint32_t b) { return entries[a].key < entries[b].key; });
  for (size_t i = 1; i < index.size(); ++i) {
    if (entries[index[i - 1]].key == entries[index[i]].key) {
      return Bad("key {}: expected once, found twice", Quote(entries[index[i]].key));
    }
  }
  return Status::Ok();
}

Status GgufParser::ReadAlignment() {
  const GgufEntry* entry = file_->FindEntry("general.alignment");
  if (entry == nullptr) {
    return Status::Ok();
  }
  if (entry->type != GgufType::kUint32) {
    return Bad("key 'general.alignment': expected a uint32, found a value of type {}", GgufTypeName(entry->type));
  }
  const uint64_t alignment = std::get<uint64_t>(entry->value);
  if (alignment < 8 || alignment > kMaxAlignment || !std::has_single_bit(alignment)) {
    return Bad("key 'general.alignment': expected a power of two from 8 to {}, found {}", kMaxAlignment, alignment);
  }
  file_->alignment_ = static_cast<uint32_t>(alignment);
  return Status::Ok();
}

Status GgufParser::RefusePart() const {
  ESPALIER_ASSIGN_OR_RETURN(const int parts, SplitCount(*file_));
  if (parts > 1 && !options_.may_be_part) {
    return Unsupported(
        fmt::format("{}: expected a model in one file, found one of {} parts (key 'split.count'); "
                    "join them with llama-gguf-split --merge",
                    name_, parts));
  }
  return Status::Ok();
}

Status GgufParser::ReadTensorInfo(uint64_t index) {
  const std::string position = fmt::format("name of tensor {} of {}", index + 1, n_tensors_);
  TensorInfo tensor;
  ESPALIER_ASSIGN_OR_RETURN(tensor.name, reader_.String(1, kMaxTensorNameBytes, position));
  if (tensor.name.find('\0') != std::string::npos) {
    return Bad("{} is {}: expected no NUL byte in it", position, Quote(tensor.name));
  }
  const std::string what = "tensor " + Quote(tensor.name);
  ESPALIER_RETURN_IF_ERROR(ReadShape(tensor, what));
  ESPALIER_RETURN_IF_ERROR(ReadTensorType(tensor, what));
  ESPALIER_ASSIGN_OR_RETURN(tensor.offset, reader_.Number<uint64_t>(what));
  if (tensor.offset % file_->alignment_ != 0) {
    return Bad("{}: offset: expected a multiple of the alignment {}, found {}", what, file_->alignment_, tensor.offset);
  }
  file_->tensors_.push_back(std::move(tensor));
  return Status::Ok();
}

Status GgufParser::ReadShape(TensorInfo& tensor, const std::string& what) {
  ESPALIER_ASSIGN_OR_RETURN(const auto n_dims, reader_.Number<uint32_t>(what));
  if (n_dims < 1 || n_dims > tensor.ne.size()) {
    return Bad("{}: number of dimensions: expected 1 to {}, found {}", what, tensor.ne.size(), n_dims);
  }
  tensor.n_dims = static_cast<int>(n_dims);
  int64_t elements = 1;
  for (uint32_t d = 0; d < n_dims; ++d) {
    ESPALIER_ASSIGN_OR_RETURN(const auto extent, reader_.Number<int64_t>(what));
    // ggml itself wants the product to stay below INT64_MAX.
    if (extent < 1 || extent >= std::numeric_limits<int64_t>::max() / elements) {
      return Bad("{}: dimension {}: expected 1 or more and fewer than 2^63 elements in all, found {}", what, d, extent);
    }
    tensor.ne[d] = extent;
    elements *= extent;
  }
  return Status::Ok();
}

Status GgufParser::ReadTensorType(TensorInfo& tensor, const std::string& what) {
  ESPALIER_ASSIGN_OR_RETURN(const auto type, reader_.Number<uint32_t>(what));
  // Types that ggml has dropped keep their number, with a size of 0.
  if (type >= GGML_TYPE_COUNT || ggml_type_size(static_cast<ggml_type>(type)) == 0 ||
      ggml_blck_size(static_cast<ggml_type>(type)) == 0) {
    return Unsupported(fmt::format("{}: {}: expected a tensor type that ggml knows, found type {}", name_, what, type));
  }
  tensor.type = static_cast<ggml_type>(type);
  const int64_t block = ggml_blck_size(tensor.type);
  if (tensor.ne[0] % block != 0) {
    return Bad("{}: row length: expected a multiple of {} (type {}), found {}", what, block,
               ggml_type_name(tensor.type), tensor.ne[0]);
  }
  const auto blocks = static_cast<uint64_t>(tensor.ne[0] / block * tensor.ne[1] * tensor.ne[2] * tensor.ne[3]);
  const uint64_t block_bytes = ggml_type_size(tensor.type);
  if (blocks > kMaxTensorBytes / block_bytes) {
    return Bad("{}: expected at most {} bytes, found {} blocks of {} bytes", what, kMaxTensorBytes, blocks,
               block_bytes);
  }
  tensor.bytes = blocks * block_bytes;
  if (tensor.bytes > file_->source_->size() && !options_.may_be_cut) {
    return Bad("truncated: {} needs {} bytes, but the file has {} bytes", what, tensor.bytes, file_->source_->size());
  }
  return Status::Ok();
}

Status GgufParser::IndexTensors() {
  if (const auto twins = file_->IndexTensors()) {
    return Bad("tensor {}: expected once, found twice", Quote(file_->tensors_[twins->first].name));
  }
  return Status::Ok();
}

// The tensors lie in the order of the table, each padded to the alignment, none missing between: ggml accepts no other
// layout, and it leaves no room for overlaps. The last one's padding may be absent.
Status GgufParser::PlaceTensors() {
  const uint64_t file_bytes = file_->source_->size();
  const uint64_t alignment = file_->alignment_;
  const auto padded = [&](uint64_t value) { return (value + alignment - 1) & ~(alignment - 1); };
  const uint64_t data_start = padded(reader_.position());
  uint64_t expected = 0;
  for (TensorInfo& tensor : file_->tensors_) {
    const std::string what = "tensor " + Quote(tensor.name);
    if (tensor.offset != expected) {
      return Bad("{}: offset: expected {} (tensors lie one behind the other, without overlap or gap), found {}", what,
                 expected, tensor.offset);
    }
    const bool cut = data_start > file_bytes || expected > file_bytes - data_start ||
                     tensor.bytes > file_bytes - data_start - expected;
    if (cut && !options_.may_be_cut) {
      return Bad("truncated: {} needs {} bytes at offset {}, but the file has {} bytes", what, tensor.bytes,
                 data_start + expected, file_bytes);
    }
    tensor.offset += data_start;
    expected += padded(tensor.bytes);
  }
  return Status::Ok();
}

Result<std::shared_ptr<GgufFile>> GgufFile::Read(std::shared_ptr<const ByteSource> source,
                                                 const GgufParseOptions& options) {
  return GgufParser(std::move(source), options).Parse();
}

}  // namespace espalier
