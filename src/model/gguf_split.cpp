#include "model/gguf_split.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/joined_source.h"
#include "model/quote.h"

namespace espalier {
namespace {

constexpr char kNo[] = "split.no";
constexpr char kCount[] = "split.count";
constexpr char kTensorsCount[] = "split.tensors.count";

// libllama, which reads the files next, takes each key in one type: it refuses others, or aborts (split.no).
Status CheckType(const GgufFile& file, const char* key, GgufType type) {
  const GgufEntry* entry = file.FindEntry(key);
  if (entry == nullptr || entry->type == type) {
    return Status::Ok();
  }
  return Corrupt(fmt::format("{}: key {}: expected a value of type {}, found one of type {}", file.path(), Quote(key),
                             GgufTypeName(type), GgufTypeName(entry->type)));
}

std::string Suffix(int no, int count) { return fmt::format("-{:05}-of-{:05}.gguf", no + 1, count); }

}  // namespace

std::string SplitPath(std::string_view prefix, int no, int count) {
  return fmt::format("{}{}", prefix, Suffix(no, count));
}

std::optional<std::string> SplitPrefix(std::string_view path, int no, int count) {
  const std::string suffix = Suffix(no, count);
  if (path.size() <= suffix.size() || !path.ends_with(suffix)) {
    return std::nullopt;
  }
  return std::string(path.substr(0, path.size() - suffix.size()));
}

Result<int> SplitCount(const GgufFile& file) {
  ESPALIER_RETURN_IF_ERROR(CheckType(file, kCount, GgufType::kUint16));
  ESPALIER_ASSIGN_OR_RETURN(const auto count, file.FindInteger(kCount, 0, 65535));
  // llama-gguf-split --merge leaves a 0 behind.
  return static_cast<int>(std::max<int64_t>(count.value_or(1), 1));
}

Result<std::shared_ptr<const GgufFile>> GgufJoiner::Join() {
  ESPALIER_RETURN_IF_ERROR(CheckFirst());
  sources_ = {joined_->source_};
  ends_ = {joined_->tensors_.size()};
  for (int no = 1; no < count_; ++no) {
    ESPALIER_RETURN_IF_ERROR(AddPart(no));
  }
  if (ends_.back() != n_tensors_) {
    return Corrupt(fmt::format("{}: tensor count: expected {} in the model's {} files (key {}), found {}",
                               joined_->path(), n_tensors_, count_, Quote(kTensorsCount), ends_.back()));
  }
  ESPALIER_RETURN_IF_ERROR(PlaceTensors());
  return std::shared_ptr<const GgufFile>(std::move(joined_));
}

Status GgufJoiner::CheckFirst() {
  const std::string& path = joined_->path();
  if (count_ > kMaxSplitParts) {
    return Unsupported(
        fmt::format("{}: key {}: expected a model in at most {} files, found {}; "
                    "join them with llama-gguf-split --merge",
                    path, Quote(kCount), kMaxSplitParts, count_));
  }
  ESPALIER_RETURN_IF_ERROR(CheckType(*joined_, kNo, GgufType::kUint16));
  ESPALIER_ASSIGN_OR_RETURN(const int64_t no, joined_->Integer(kNo, 0, count_ - 1));
  const auto prefix = SplitPrefix(path, static_cast<int>(no), count_);
  if (no != 0) {
    return InvalidArgument(fmt::format("{}: expected the first of the model's {} files{}, found file {}", path, count_,
                                       prefix ? ", " + SplitPath(*prefix, 0, count_) : "", no + 1));
  }
  if (!prefix) {
    return InvalidArgument(
        fmt::format("{}: expected a name like NAME{}, from which those of the model's other files follow, found "
                    "another",
                    path, Suffix(0, count_)));
  }
  prefix_ = *prefix;
  ESPALIER_RETURN_IF_ERROR(CheckType(*joined_, kTensorsCount, GgufType::kInt32));
  ESPALIER_ASSIGN_OR_RETURN(const int64_t n_tensors,
                            joined_->Integer(kTensorsCount, 1, static_cast<int64_t>(kMaxGgufTensors)));
  n_tensors_ = static_cast<uint64_t>(n_tensors);
  return Status::Ok();
}

Status GgufJoiner::AddPart(int no) {
  const auto file = File::Open(SplitPath(prefix_, no, count_));
  if (!file.ok()) {
    return Status(file.status().code(),
                  fmt::format("{} (file {} of the {} that the model is in)", file.status().message(), no + 1, count_));
  }
  ESPALIER_ASSIGN_OR_RETURN(const auto part, GgufFile::Read(*file, {.may_be_part = true}));
  ESPALIER_RETURN_IF_ERROR(CheckPart(*part, no));
  joined_->tensors_.insert(joined_->tensors_.end(), part->tensors_.begin(), part->tensors_.end());
  joined_->paths_.push_back(part->path());
  sources_.push_back(part->source_);
  ends_.push_back(joined_->tensors_.size());
  return Status::Ok();
}

// libllama asks for split.no alone. What else there is must agree.
Status GgufJoiner::CheckPart(const GgufFile& part, int no) const {
  const auto differs = [&](const char* key, uint64_t expected, int64_t found) {
    return Corrupt(fmt::format("{}: key {}: expected {}, as file {} of {}, found {}", part.path(), Quote(key), expected,
                               no + 1, joined_->path(), found));
  };
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  ESPALIER_RETURN_IF_ERROR(CheckType(part, kNo, GgufType::kUint16));
  ESPALIER_ASSIGN_OR_RETURN(const int64_t found_no, part.Integer(kNo, 0, kMost));
  if (found_no != no) {
    return differs(kNo, static_cast<uint64_t>(no), found_no);
  }
  ESPALIER_ASSIGN_OR_RETURN(const auto count, part.FindInteger(kCount, 0, kMost));
  if (count.value_or(count_) != count_) {
    return differs(kCount, static_cast<uint64_t>(count_), *count);
  }
  ESPALIER_ASSIGN_OR_RETURN(const auto n_tensors, part.FindInteger(kTensorsCount, 0, kMost));
  if (n_tensors && std::cmp_not_equal(*n_tensors, n_tensors_)) {
    return differs(kTensorsCount, n_tensors_, *n_tensors);
  }
  // Early, so that no number of files adds up to more tensors than one may have.
  const uint64_t before = ends_.back();
  if (before > n_tensors_ || part.tensors_.size() > n_tensors_ - before) {
    return Corrupt(fmt::format("{}: tensor count: expected at most {} in the model's first {} files (key {}), found {}",
                               part.path(), n_tensors_, no + 1, Quote(kTensorsCount), before + part.tensors_.size()));
  }
  return Status::Ok();
}

// Offsets count from the first file's beginning from here on.
Status GgufJoiner::PlaceTensors() {
  ESPALIER_ASSIGN_OR_RETURN(const auto source, JoinedSource::Join(std::move(sources_)));
  auto& tensors = joined_->tensors_;
  for (size_t part = 1; part < ends_.size(); ++part) {
    for (size_t i = ends_[part - 1]; i < ends_[part]; ++i) {
      tensors[i].offset += source->start(part);
    }
  }
  joined_->source_ = source;
  if (const auto twins = joined_->IndexTensors()) {
    const auto path_of = [&](uint32_t tensor) { return joined_->paths_[source->PartAt(tensors[tensor].offset)]; };
    return Corrupt(fmt::format("{}: tensor {}: expected in one of the model's files, found in {} as well",
                               path_of(twins->second), Quote(tensors[twins->first].name), path_of(twins->first)));
  }
  return Status::Ok();
}

}  // namespace espalier
