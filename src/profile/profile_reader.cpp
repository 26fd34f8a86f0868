#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/hash.h"
#include "model/gguf_file.h"
#include "model/quote.h"
#include "profile/profile_file.h"
#include "profile/profile_header.h"
#include "profile/profile_layout.h"

namespace espalier {
namespace {

using namespace profile_layout;  // NOLINT: the format's names

using Bytes = std::span<const std::byte>;

constexpr uint64_t kMaxProfileBytes = kGiB;

class Decoder {
 public:
  Decoder(const GgufFile& gguf, Bytes bytes, RecoveryNotes* notes) : gguf_(gguf), bytes_(bytes), notes_(notes) {}

  Result<Profile> Decode() {
    ESPALIER_RETURN_IF_ERROR(CheckVersion());
    ESPALIER_RETURN_IF_ERROR(ReadModel());
    NoteDamageOfFile();
    ReadAll("rankings", kMaxRankings, &Decoder::ReadRanking);
    ReadAll("texts", kMaxTexts, &Decoder::ReadText);
    if (gguf_.FindEntry("espalier.agents") != nullptr) {  // profiles of before there were any have no such key
      ReadAll("agents", kMaxAgents, &Decoder::ReadAgent);
    }
    ReadMeans();
    ReadAll("archives", kMaxArchives, &Decoder::ReadArchive);
    return std::move(profile_);
  }

 private:
  Status CheckVersion() const;
  Status ReadModel();
  void NoteDamageOfFile();
  void ReadAll(const char* what, uint32_t most, Status (Decoder::*read)(const std::string&));
  Status ReadRanking(const std::string& index);
  Status ReadText(const std::string& index);
  Status ReadAgent(const std::string& index);
  void ReadMeans();
  Status ReadMeansSection(const TensorInfo& tensor);
  Status ReadArchive(const std::string& index);
  Result<MeasurementSet> ReadSet(const std::string& prefix) const;

  // The tensor's bytes, as many as the file has. Fails if it is not of that type and these extents (0: any).
  Result<Bytes> Data(const std::string& name, ggml_type type, std::array<int64_t, 2> ne) const;
  // The same, all of it.
  Result<Bytes> WholeData(const std::string& name, ggml_type type, std::array<int64_t, 2> ne) const;
  Result<std::string> Text(const std::string& key) const;  // without NUL, which could not be written again
  Result<uint64_t> Natural(const std::string& key) const;  // of 64 bits
  Status CheckSum(const std::string& key, std::initializer_list<Bytes> sections) const;

  template <class... Args>
  void Note(fmt::format_string<Args...> format, Args&&... args) {
    notes_->push_back(fmt::format("{}: {}", gguf_.path(), fmt::format(format, std::forward<Args>(args)...)));
  }
  Status Bad(const std::string& what) const { return Corrupt(fmt::format("{}: {}", gguf_.path(), what)); }

  const GgufFile& gguf_;
  const Bytes bytes_;
  RecoveryNotes* notes_;
  Profile profile_;
};

Status Decoder::CheckVersion() const {
  ESPALIER_ASSIGN_OR_RETURN(const int64_t version, gguf_.Integer("espalier.version", 1, UINT32_MAX));
  if (version > kVersion) {
    return Unsupported(fmt::format("{}: profile of format version {}: this Espalier reads up to version {}",
                                   gguf_.path(), version, kVersion));
  }
  return Status::Ok();
}

Status Decoder::ReadModel() {
  ESPALIER_ASSIGN_OR_RETURN(profile_.model_fingerprint, Text("espalier.model.fingerprint"));
  ESPALIER_ASSIGN_OR_RETURN(profile_.model_name, Text("espalier.model.name"));
  ESPALIER_ASSIGN_OR_RETURN(profile_.quantization, Text("espalier.model.quantization"));
  ESPALIER_ASSIGN_OR_RETURN(const int64_t n_layer, gguf_.Integer("espalier.model.layers", 1, kMaxLayers));
  profile_.n_layer = static_cast<int>(n_layer);
  ESPALIER_ASSIGN_OR_RETURN(profile_.n_embd, gguf_.Integer("espalier.model.embedding_length", 1, kMaxEmbedding));
  ESPALIER_ASSIGN_OR_RETURN(const std::string ablation, Text("espalier.ablation"));
  ESPALIER_ASSIGN_OR_RETURN(profile_.ablation, ParseAblation(ablation));
  ESPALIER_ASSIGN_OR_RETURN(profile_.primary_set, Text("espalier.primary_set"));
  if (gguf_.FindEntry("espalier.statistics_set") != nullptr) {
    ESPALIER_ASSIGN_OR_RETURN(profile_.statistics_set, Text("espalier.statistics_set"));
  }
  return Status::Ok();
}

void Decoder::NoteDamageOfFile() {
  const TensorInfo& last = gguf_.tensors().back();
  if (last.offset > bytes_.size() || last.bytes > bytes_.size() - last.offset) {
    Note("cut short: expected {} bytes, found {}", last.offset + last.bytes, bytes_.size());
    return;
  }
  const auto header = HeaderOf(gguf_, bytes_);
  const Bytes copy = HeaderCopy(bytes_.first(last.offset + last.bytes));
  if (!std::equal(copy.begin(), copy.end(), header->begin(), header->end())) {
    Note("the copy of the header at the end is damaged; nothing was lost");
  }
}

void Decoder::ReadAll(const char* what, uint32_t most, Status (Decoder::*read)(const std::string&)) {
  const auto count = gguf_.Integer(fmt::format("espalier.{}", what), 0, most);
  if (!count.ok()) {
    Note("all {} are lost: {}", what, count.status().message());
    return;
  }
  for (int64_t i = 0; i < *count; ++i) {
    const Status status = (this->*read)(fmt::to_string(i));
    if (!status.ok()) {
      Note("{} {} of {} lost: {}", what, i + 1, *count, status.message());
    }
  }
}

Result<Bytes> Decoder::Data(const std::string& name, ggml_type type, std::array<int64_t, 2> ne) const {
  const TensorInfo* tensor = gguf_.FindTensor(name);
  if (tensor == nullptr) {
    return Bad(fmt::format("tensor {}: expected one, found none", Quote(name)));
  }
  const bool fits = tensor->type == type && (ne[0] == 0 || tensor->ne[0] == ne[0]) &&
                    (ne[1] == 0 || tensor->ne[1] == ne[1]) && tensor->ne[2] == 1 && tensor->ne[3] == 1;
  if (!fits) {
    return Bad(fmt::format("tensor {}: expected type {} and {} x {} elements (0: any), found {} and {} x {}",
                           Quote(name), ggml_type_name(type), ne[0], ne[1], TensorTypeName(*tensor), tensor->ne[0],
                           tensor->ne[1]));
  }
  const uint64_t start = std::min<uint64_t>(tensor->offset, bytes_.size());
  return bytes_.subspan(start, std::min(tensor->bytes, bytes_.size() - start));
}

Result<Bytes> Decoder::WholeData(const std::string& name, ggml_type type, std::array<int64_t, 2> ne) const {
  ESPALIER_ASSIGN_OR_RETURN(const Bytes data, Data(name, type, ne));
  if (const uint64_t expected = gguf_.FindTensor(name)->bytes; data.size() != expected) {
    return Bad(fmt::format("tensor {}: expected {} bytes, found {}", Quote(name), expected, data.size()));
  }
  return data;
}

Result<std::string> Decoder::Text(const std::string& key) const {
  ESPALIER_ASSIGN_OR_RETURN(std::string text, gguf_.String(key));
  if (text.find('\0') != std::string::npos) {
    return Bad(fmt::format("key {}: expected text without NUL bytes", Quote(key)));
  }
  return text;
}

Result<uint64_t> Decoder::Natural(const std::string& key) const {
  const GgufEntry* entry = gguf_.FindEntry(key);
  if (entry == nullptr || !std::holds_alternative<uint64_t>(entry->value)) {
    return Bad(fmt::format("key {}: expected a natural number", Quote(key)));
  }
  return std::get<uint64_t>(entry->value);
}

Status Decoder::CheckSum(const std::string& key, std::initializer_list<Bytes> sections) const {
  ESPALIER_ASSIGN_OR_RETURN(const std::string expected, Text(key));
  uint64_t hash = 0;
  for (const Bytes section : sections) {
    hash = Hash64(section, hash);
  }
  if (!ChecksumHolds(ChecksumText(hash), expected)) {
    return Bad(fmt::format("checksum: expected {}, found {}", Quote(expected), ChecksumText(hash)));
  }
  return Status::Ok();
}

Status Decoder::ReadRanking(const std::string& index) {
  const std::string prefix = "espalier.ranking." + index + ".";
  const std::string data = "ranking." + index + ".";
  const int n_block = 2 * profile_.n_layer;
  Ranking ranking;
  ESPALIER_ASSIGN_OR_RETURN(ranking.method, Text(prefix + "method"));
  ESPALIER_ASSIGN_OR_RETURN(ranking.kv_cells, gguf_.Integer(prefix + "kv_cells", 0, INT64_MAX));
  ESPALIER_ASSIGN_OR_RETURN(ranking.seed, Natural(prefix + "seed"));
  ESPALIER_ASSIGN_OR_RETURN(const Bytes order, WholeData(data + "drop_order", GGML_TYPE_I32, {n_block, 1}));
  Bytes score;
  if (gguf_.FindTensor(data + "score") != nullptr) {
    ESPALIER_ASSIGN_OR_RETURN(score, WholeData(data + "score", GGML_TYPE_F64, {n_block, 1}));
    ESPALIER_RETURN_IF_ERROR(CheckSum(prefix + "xxh3", {order, score}));
  } else {
    ESPALIER_RETURN_IF_ERROR(CheckSum(prefix + "xxh3", {order}));
  }
  std::vector<bool> seen(static_cast<size_t>(n_block));
  for (size_t i = 0; i < seen.size(); ++i) {
    const auto block = LoadAt<int32_t>(order, i);
    if (block < 0 || block >= n_block || seen[static_cast<size_t>(block)]) {
      return Bad(fmt::format("drop order: expected each of {} blocks once, found {} at place {}", n_block, block, i));
    }
    seen[static_cast<size_t>(block)] = true;
    ranking.drop_order.push_back({block});
  }
  for (size_t i = 0; i < score.size() / sizeof(double); ++i) {
    ranking.score.push_back(LoadAt<double>(score, i));
  }
  profile_.Put(std::move(ranking));
  return Status::Ok();
}

Status Decoder::ReadText(const std::string& index) {
  const std::string prefix = "espalier.text." + index + ".";
  const std::string data = "text." + index + ".runs";
  TextSketch text;
  ESPALIER_ASSIGN_OR_RETURN(text.corpus, Text(prefix + "corpus"));
  ESPALIER_ASSIGN_OR_RETURN(text.tokens_hash, Text(prefix + "tokens_hash"));
  if (gguf_.FindTensor(data) != nullptr) {
    ESPALIER_ASSIGN_OR_RETURN(const Bytes runs, WholeData(data, GGML_TYPE_I64, {0, 1}));
    ESPALIER_RETURN_IF_ERROR(CheckSum(prefix + "xxh3", {runs}));
    for (size_t i = 0; i < runs.size() / sizeof(uint64_t); ++i) {
      text.runs.push_back(LoadAt<uint64_t>(runs, i));
    }
    std::sort(text.runs.begin(), text.runs.end());
  }
  profile_.Put(std::move(text));
  return Status::Ok();
}

Status Decoder::ReadAgent(const std::string& index) {
  const std::string prefix = "espalier.agent." + index + ".";
  Agent agent;
  ESPALIER_ASSIGN_OR_RETURN(agent.network, Text(prefix + "network"));
  ESPALIER_ASSIGN_OR_RETURN(agent.reward, Text(prefix + "reward"));
  ESPALIER_ASSIGN_OR_RETURN(agent.seed, Natural(prefix + "seed"));
  ESPALIER_ASSIGN_OR_RETURN(agent.state_version, gguf_.Integer(prefix + "state_version", 0, INT32_MAX));
  ESPALIER_ASSIGN_OR_RETURN(agent.episodes, gguf_.Integer(prefix + "episodes", 0, INT64_MAX));
  agent.planned = agent.episodes;
  if (gguf_.FindEntry(prefix + "planned") != nullptr) {  // trainings could not be interrupted before there was one
    ESPALIER_ASSIGN_OR_RETURN(agent.planned, gguf_.Integer(prefix + "planned", 0, INT64_MAX));
  }
  ESPALIER_ASSIGN_OR_RETURN(agent.trained_on, Text(prefix + "trained_on"));
  ESPALIER_ASSIGN_OR_RETURN(const Bytes data, WholeData("agent." + index + ".parameters", GGML_TYPE_F32, {0, 1}));
  ESPALIER_RETURN_IF_ERROR(CheckSum(prefix + "xxh3", {data}));
  if (data.empty() || data.size() / sizeof(float) > kMaxAgentParameters) {
    return Bad(fmt::format("agent's parameters: expected 1 to {}, found {}", kMaxAgentParameters,
                           data.size() / sizeof(float)));
  }
  agent.parameters.resize(data.size() / sizeof(float));
  std::memcpy(agent.parameters.data(), data.data(), data.size());
  if (!std::all_of(agent.parameters.begin(), agent.parameters.end(), [](float p) { return std::isfinite(p); })) {
    return Bad("agent's parameters: expected finite values");
  }
  profile_.Put(std::move(agent));
  return Status::Ok();
}

void Decoder::ReadMeans() {
  const TensorInfo* tensor = gguf_.FindTensor("means");
  if (tensor == nullptr) {
    return;
  }
  if (const Status status = ReadMeansSection(*tensor); !status.ok()) {
    Note("the blocks' mean outputs are lost: {}", status.message());
  }
}

Status Decoder::ReadMeansSection(const TensorInfo& tensor) {
  ESPALIER_ASSIGN_OR_RETURN(const Bytes data,
                            WholeData(tensor.name, GGML_TYPE_F32, {profile_.n_embd, 2 * profile_.n_layer}));
  ESPALIER_RETURN_IF_ERROR(CheckSum("espalier.means.xxh3", {data}));
  profile_.means.n_embd = profile_.n_embd;
  profile_.means.values.resize(data.size() / sizeof(float));
  std::memcpy(profile_.means.values.data(), data.data(), data.size());
  if (!std::all_of(profile_.means.values.begin(), profile_.means.values.end(),
                   [](float value) { return std::isfinite(value); })) {
    profile_.means = {};
    return Bad("tensor 'means': expected finite values");
  }
  return Status::Ok();
}

Result<MeasurementSet> Decoder::ReadSet(const std::string& prefix) const {
  MeasurementSet set;
  ESPALIER_ASSIGN_OR_RETURN(set.corpus, Text(prefix + "corpus"));
  ESPALIER_ASSIGN_OR_RETURN(set.tokens_hash, Text(prefix + "tokens_hash"));
  ESPALIER_ASSIGN_OR_RETURN(set.protocol, Text(prefix + "protocol"));
  ESPALIER_ASSIGN_OR_RETURN(set.window_tokens, gguf_.Integer(prefix + "window_tokens", 1, INT64_MAX));
  ESPALIER_ASSIGN_OR_RETURN(set.n_windows, gguf_.Integer(prefix + "windows", 1, INT64_MAX));
  ESPALIER_ASSIGN_OR_RETURN(set.tokens_scored, gguf_.Integer(prefix + "tokens_scored", 1, INT64_MAX));
  ESPALIER_ASSIGN_OR_RETURN(set.key_type, Text(prefix + "key_type"));
  ESPALIER_ASSIGN_OR_RETURN(set.value_type, Text(prefix + "value_type"));
  ESPALIER_ASSIGN_OR_RETURN(const std::string ablation, Text(prefix + "ablation"));
  ESPALIER_ASSIGN_OR_RETURN(set.ablation, ParseAblation(ablation));
  ESPALIER_ASSIGN_OR_RETURN(set.means_hash, Text(prefix + "means_hash"));
  if (!IsPlausible(set)) {
    return Bad(fmt::format("set {}: nothing can have been measured on it", Quote(set.Key())));
  }
  return set;
}

// The rows of an archive as they lie in the file; each stands by itself.
struct StoredRows {
  size_t n_block = 0;
  size_t rows = 0;
  Bytes keep, first, checksum, loss;

  static constexpr size_t kWindowBytes = sizeof(WindowLoss);

  // Adds row `index` to the archive, if it is sound.
  bool AddTo(Archive& archive, size_t index) const {
    const size_t keep_bytes = n_block * sizeof(int16_t);
    if (keep.size() / keep_bytes <= index || first.size() / sizeof(int64_t) <= index + 1 ||
        checksum.size() / sizeof(uint64_t) <= index) {
      return false;
    }
    const auto begin = LoadAt<int64_t>(first, index);
    const auto end = LoadAt<int64_t>(first, index + 1);
    if (begin < 0 || end <= begin || static_cast<uint64_t>(end) > loss.size() / kWindowBytes) {
      return false;
    }
    const Bytes keeps = keep.subspan(index * keep_bytes, keep_bytes);
    const Bytes windows =
        loss.subspan(static_cast<size_t>(begin) * kWindowBytes, static_cast<size_t>(end - begin) * kWindowBytes);
    if (!ChecksumHolds(RowChecksum(keeps, windows), LoadAt<uint64_t>(checksum, index))) {
      return false;
    }
    const auto row = DecodeRow(keeps, windows);
    return row && archive.Add(row->plan, 0, row->windows);
  }
};

Status Decoder::ReadArchive(const std::string& index) {
  ESPALIER_ASSIGN_OR_RETURN(const MeasurementSet set, ReadSet("espalier.archive." + index + "."));
  Archive& archive = profile_.ArchiveFor(set);
  const std::string prefix = "archive." + index + ".";
  const TensorInfo* checksums = gguf_.FindTensor(prefix + "row_xxh3");
  if (checksums == nullptr) {
    return Status::Ok();
  }
  StoredRows stored;
  const int64_t rows = checksums->ne[0];
  const int64_t n_block = 2 * profile_.n_layer;
  stored.n_block = static_cast<size_t>(n_block);
  ESPALIER_ASSIGN_OR_RETURN(stored.keep, Data(prefix + "keep", GGML_TYPE_I16, {n_block, rows}));
  ESPALIER_ASSIGN_OR_RETURN(stored.first, Data(prefix + "first", GGML_TYPE_I64, {rows + 1, 1}));
  ESPALIER_ASSIGN_OR_RETURN(stored.checksum, Data(prefix + "row_xxh3", GGML_TYPE_I64, {rows, 1}));
  ESPALIER_ASSIGN_OR_RETURN(stored.loss, Data(prefix + "loss", GGML_TYPE_F64, {2, 0}));
  // No row without its fractions: what the table claims beyond that need not be walked through.
  stored.rows = std::min(static_cast<size_t>(rows), stored.keep.size() / (stored.n_block * sizeof(int16_t)));
  int64_t lost = rows - static_cast<int64_t>(stored.rows);
  for (size_t i = 0; i < stored.rows; ++i) {
    lost += stored.AddTo(archive, i) ? 0 : 1;
  }
  if (lost > 0) {
    Note("archive of {} ({}): {} of {} measured plans are lost", Quote(set.corpus), set.Key(), lost, rows);
  }
  return Status::Ok();
}

}  // namespace

Result<Profile> ParseProfile(const ByteSource& source, RecoveryNotes* notes) {
  if (source.size() > kMaxProfileBytes) {
    return InvalidArgument(fmt::format("{}: expected a profile of at most {}, found {}", source.name(),
                                       FormatBytes(kMaxProfileBytes), FormatBytes(source.size())));
  }
  std::vector<std::byte> bytes(source.size());
  ESPALIER_RETURN_IF_ERROR(source.ReadAt(0, bytes));
  ESPALIER_ASSIGN_OR_RETURN(const auto gguf, FindHeader(bytes, source.name(), notes));
  return Decoder(*gguf, bytes, notes).Decode();
}

}  // namespace espalier
