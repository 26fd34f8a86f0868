#include "model/gguf_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "model/gguf_split.h"
#include "model/quote.h"

namespace espalier {

const char* GgufTypeName(GgufType type) {
  constexpr std::array<const char*, 13> kNames = {"uint8", "int8",   "uint16", "int16",  "uint32", "int32",  "float32",
                                                  "bool",  "string", "array",  "uint64", "int64",  "float64"};
  return kNames[static_cast<size_t>(type)];
}

const char* TensorTypeName(const TensorInfo& tensor) { return ggml_type_name(tensor.type); }

Result<std::shared_ptr<const GgufFile>> GgufFile::Open(const std::string& path) {
  ESPALIER_ASSIGN_OR_RETURN(std::shared_ptr<const ByteSource> file, File::Open(path));
  ESPALIER_ASSIGN_OR_RETURN(std::shared_ptr<GgufFile> gguf, Read(std::move(file), {.may_be_part = true}));
  ESPALIER_ASSIGN_OR_RETURN(const int parts, SplitCount(*gguf));
  if (parts > 1) {
    return GgufJoiner(std::move(gguf), parts).Join();
  }
  return std::shared_ptr<const GgufFile>(std::move(gguf));
}

Result<std::shared_ptr<const GgufFile>> GgufFile::Parse(std::shared_ptr<const ByteSource> source,
                                                        const GgufParseOptions& options) {
  ESPALIER_ASSIGN_OR_RETURN(std::shared_ptr<GgufFile> gguf, Read(std::move(source), options));
  return std::shared_ptr<const GgufFile>(std::move(gguf));
}

std::optional<std::pair<uint32_t, uint32_t>> GgufFile::IndexTensors() {
  auto& index = tensors_by_name_;
  index.resize(tensors_.size());
  std::iota(index.begin(), index.end(), 0);
  std::stable_sort(index.begin(), index.end(),
                   [&](uint32_t a, uint32_t b) { return tensors_[a].name < tensors_[b].name; });
  const auto twins = std::adjacent_find(index.begin(), index.end(),
                                        [&](uint32_t a, uint32_t b) { return tensors_[a].name == tensors_[b].name; });
  return twins != index.end() ? std::optional(std::pair(twins[0], twins[1])) : std::nullopt;
}

const GgufEntry* GgufFile::FindEntry(std::string_view key) const {
  const auto at = std::lower_bound(entries_by_key_.begin(), entries_by_key_.end(), key,
                                   [&](uint32_t i, std::string_view k) { return entries_[i].key < k; });
  return at != entries_by_key_.end() && entries_[*at].key == key ? &entries_[*at] : nullptr;
}

const TensorInfo* GgufFile::FindTensor(std::string_view name) const {
  const auto at = std::lower_bound(tensors_by_name_.begin(), tensors_by_name_.end(), name,
                                   [&](uint32_t i, std::string_view n) { return tensors_[i].name < n; });
  return at != tensors_by_name_.end() && tensors_[*at].name == name ? &tensors_[*at] : nullptr;
}

namespace {

Status WrongType(const GgufFile& file, const GgufEntry& entry, std::string_view expected) {
  return Corrupt(fmt::format("{}: key {}: expected {}, found a value of type {}", file.path(), Quote(entry.key),
                             expected, GgufTypeName(entry.type)));
}

template <class T>
Result<T> Require(const GgufFile& file, std::string_view key, Result<std::optional<T>> found) {
  if (!found.ok()) {
    return found.status();
  }
  if (!found->has_value()) {
    return Corrupt(fmt::format("{}: key {}: expected in the metadata, found none", file.path(), Quote(key)));
  }
  return std::move(**found);
}

}  // namespace

Result<std::optional<int64_t>> GgufFile::FindInteger(std::string_view key, int64_t lowest, int64_t highest) const {
  const GgufEntry* entry = FindEntry(key);
  if (entry == nullptr) {
    return std::optional<int64_t>();
  }
  const auto* natural = std::get_if<uint64_t>(&entry->value);
  const auto* integer = std::get_if<int64_t>(&entry->value);
  if (natural == nullptr && integer == nullptr) {
    return WrongType(*this, *entry, "an integer");
  }
  const bool fits = natural != nullptr
                        ? std::cmp_greater_equal(*natural, lowest) && std::cmp_less_equal(*natural, highest)
                        : *integer >= lowest && *integer <= highest;
  if (!fits) {
    return Corrupt(fmt::format("{}: key {}: expected {} to {}, found {}", path(), Quote(key), lowest, highest,
                               natural != nullptr ? fmt::to_string(*natural) : fmt::to_string(*integer)));
  }
  return std::optional<int64_t>(natural != nullptr ? static_cast<int64_t>(*natural) : *integer);
}

Result<std::optional<double>> GgufFile::FindNumber(std::string_view key) const {
  const GgufEntry* entry = FindEntry(key);
  if (entry == nullptr) {
    return std::optional<double>();
  }
  const auto* number = std::get_if<double>(&entry->value);
  if (number == nullptr) {
    return WrongType(*this, *entry, "a floating-point number");
  }
  if (!std::isfinite(*number)) {
    return Corrupt(fmt::format("{}: key {}: expected a finite number, found {}", path(), Quote(key), *number));
  }
  return std::optional<double>(*number);
}

Result<std::optional<std::string>> GgufFile::FindString(std::string_view key) const {
  const GgufEntry* entry = FindEntry(key);
  if (entry == nullptr) {
    return std::optional<std::string>();
  }
  const auto* text = std::get_if<std::string>(&entry->value);
  return text != nullptr ? Result<std::optional<std::string>>(*text) : WrongType(*this, *entry, "a string");
}

Result<std::optional<bool>> GgufFile::FindBool(std::string_view key) const {
  const GgufEntry* entry = FindEntry(key);
  if (entry == nullptr) {
    return std::optional<bool>();
  }
  const auto* flag = std::get_if<bool>(&entry->value);
  return flag != nullptr ? Result<std::optional<bool>>(*flag) : WrongType(*this, *entry, "a bool");
}

Result<int64_t> GgufFile::Integer(std::string_view key, int64_t lowest, int64_t highest) const {
  return Require(*this, key, FindInteger(key, lowest, highest));
}

Result<double> GgufFile::Number(std::string_view key) const { return Require(*this, key, FindNumber(key)); }

Result<std::string> GgufFile::String(std::string_view key) const { return Require(*this, key, FindString(key)); }

}  // namespace espalier
