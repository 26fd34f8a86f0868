#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/hash.h"
#include "model/gguf_writer.h"
#include "model/quote.h"
#include "profile/profile_file.h"
#include "profile/profile_layout.h"

namespace espalier {
namespace {

using namespace profile_layout;  // NOLINT: the format's names

struct Section {
  std::string name;
  ggml_type type;
  std::vector<int64_t> ne;
  std::vector<std::byte> data;
};

Status Inconsistent(const std::string& what) { return InvalidArgument(fmt::format("profile to be written: {}", what)); }

Status CheckRanking(const Ranking& ranking, int n_block) {
  std::vector<int> order;
  for (const BlockId block : ranking.drop_order) {
    order.push_back(block.index);
  }
  std::sort(order.begin(), order.end());
  std::vector<int> every(static_cast<size_t>(n_block));
  std::iota(every.begin(), every.end(), 0);
  if (order != every) {
    return Inconsistent(fmt::format("ranking {}: expected each of {} blocks once, found {} entries",
                                    Quote(ranking.method), n_block, order.size()));
  }
  if (!ranking.score.empty() && ranking.score.size() != every.size()) {
    return Inconsistent(fmt::format("ranking {}: expected {} scores or none, found {}", Quote(ranking.method), n_block,
                                    ranking.score.size()));
  }
  return Status::Ok();
}

Status CheckProfile(const Profile& profile) {
  if (profile.n_layer < 1 || profile.n_layer > kMaxLayers || profile.n_embd < 1 || profile.n_embd > kMaxEmbedding) {
    return Inconsistent(fmt::format("expected 1 to {} layers of width 1 to {}, found {} of width {}", kMaxLayers,
                                    kMaxEmbedding, profile.n_layer, profile.n_embd));
  }
  if (profile.archives.size() > kMaxArchives || profile.rankings.size() > kMaxRankings ||
      profile.texts.size() > kMaxTexts || profile.agents.size() > kMaxAgents) {
    return Inconsistent(
        fmt::format("expected at most {} archives, {} rankings, {} texts and {} agents, found {}, {}, {} and {}",
                    kMaxArchives, kMaxRankings, kMaxTexts, kMaxAgents, profile.archives.size(), profile.rankings.size(),
                    profile.texts.size(), profile.agents.size()));
  }
  for (const Agent& agent : profile.agents) {
    if (agent.parameters.empty() || agent.parameters.size() > kMaxAgentParameters) {
      return Inconsistent(fmt::format("agent {}/{}: expected 1 to {} parameters, found {}", Quote(agent.network),
                                      Quote(agent.reward), kMaxAgentParameters, agent.parameters.size()));
    }
  }
  const int n_block = 2 * profile.n_layer;
  if (!profile.means.empty() &&
      (profile.means.n_embd != profile.n_embd ||
       profile.means.values.size() != static_cast<size_t>(n_block) * static_cast<size_t>(profile.n_embd))) {
    return Inconsistent(fmt::format("means: expected {} x {} values, found {} of width {}", n_block, profile.n_embd,
                                    profile.means.values.size(), profile.means.n_embd));
  }
  for (const Ranking& ranking : profile.rankings) {
    ESPALIER_RETURN_IF_ERROR(CheckRanking(ranking, n_block));
  }
  for (const Archive& archive : profile.archives) {
    if (!IsPlausible(archive.set())) {
      return Inconsistent(fmt::format("archive of {}: expected a set that can be measured, found {}",
                                      Quote(archive.set().corpus), Quote(archive.set().Key())));
    }
    if (!archive.rows().empty() && archive.rows().front().plan.n_block() != n_block) {
      return Inconsistent(fmt::format("archive of {}: expected plans of {} blocks, found {}",
                                      Quote(archive.set().corpus), n_block, archive.rows().front().plan.n_block()));
    }
  }
  return Status::Ok();
}

class Encoder {
 public:
  explicit Encoder(const Profile& profile) : profile_(profile) { AddSections(); }

  // Header and its copy, with checksums in place.
  Status Write(AtomicFileWriter& writer) {
    std::vector<std::byte> header = Header(Header(kCopyFooterBytes).size() + kCopyFooterBytes);
    const std::string checksum = HeaderChecksum(header);
    std::memcpy(ChecksumDigits(header).data(), checksum.data(), kChecksumDigits);
    ESPALIER_RETURN_IF_ERROR(writer.Append(header));
    for (const Section& section : sections_) {
      ESPALIER_RETURN_IF_ERROR(writer.Append(section.data));
      ESPALIER_RETURN_IF_ERROR(PadTensor(writer));
    }
    std::vector<std::byte> footer;
    AppendBytes(footer, static_cast<uint64_t>(header.size()));
    const auto magic = std::as_bytes(std::span(kCopyMagic, kCopyMagicBytes));
    footer.insert(footer.end(), magic.begin(), magic.end());
    ESPALIER_RETURN_IF_ERROR(writer.Append(header));
    return writer.Append(footer);
  }

 private:
  template <class T>
  void Add(std::string name, ggml_type type, std::vector<int64_t> ne, std::span<const T> values) {
    const auto bytes = std::as_bytes(values);
    sections_.push_back({std::move(name), type, std::move(ne), {bytes.begin(), bytes.end()}});
  }

  void AddSections();
  void AddRanking(size_t index);
  void AddArchive(size_t index);
  std::vector<std::byte> Header(uint64_t copy_bytes) const;
  void SetModel(GgufHeader& header) const;
  void SetRanking(GgufHeader& header, size_t index) const;
  void SetText(GgufHeader& header, size_t index) const;
  void SetAgent(GgufHeader& header, size_t index) const;
  void SetArchive(GgufHeader& header, size_t index) const;
  // Over all sections whose names begin with `prefix`, one behind the other.
  std::string SectionChecksum(const std::string& prefix) const;

  const Profile& profile_;
  std::vector<Section> sections_;
};

// Small and dear things first: a file that is cut short loses its end.
void Encoder::AddSections() {
  for (size_t i = 0; i < profile_.rankings.size(); ++i) {
    AddRanking(i);
  }
  for (size_t i = 0; i < profile_.texts.size(); ++i) {
    if (const auto& runs = profile_.texts[i].runs; !runs.empty()) {
      Add<uint64_t>(fmt::format("text.{}.runs", i), GGML_TYPE_I64, {static_cast<int64_t>(runs.size())}, runs);
    }
  }
  for (size_t i = 0; i < profile_.agents.size(); ++i) {
    const auto& parameters = profile_.agents[i].parameters;
    Add<float>(fmt::format("agent.{}.parameters", i), GGML_TYPE_F32, {static_cast<int64_t>(parameters.size())},
               parameters);
  }
  if (!profile_.means.empty()) {
    Add<float>("means", GGML_TYPE_F32, {profile_.n_embd, 2 * profile_.n_layer}, profile_.means.values);
  }
  for (size_t i = 0; i < profile_.archives.size(); ++i) {
    AddArchive(i);
  }
}

void Encoder::AddRanking(size_t index) {
  const Ranking& ranking = profile_.rankings[index];
  std::vector<int32_t> order;
  for (const BlockId block : ranking.drop_order) {
    order.push_back(block.index);
  }
  const auto n = static_cast<int64_t>(order.size());
  Add<int32_t>(fmt::format("ranking.{}.drop_order", index), GGML_TYPE_I32, {n}, order);
  if (!ranking.score.empty()) {
    Add<double>(fmt::format("ranking.{}.score", index), GGML_TYPE_F64, {n}, ranking.score);
  }
}

void Encoder::AddArchive(size_t index) {
  const Archive& archive = profile_.archives[index];
  if (archive.rows().empty()) {
    return;
  }
  std::vector<int16_t> keeps;
  std::vector<int64_t> first = {0};
  std::vector<uint64_t> checksums;
  std::vector<WindowLoss> losses;
  const auto n_block = static_cast<size_t>(2 * profile_.n_layer);
  for (const ArchiveRow& row : archive.rows()) {
    for (size_t i = 0; i < n_block; ++i) {
      keeps.push_back(KeepToFixed(row.plan.keep({static_cast<int>(i)})));
    }
    losses.insert(losses.end(), row.windows.begin(), row.windows.end());
    first.push_back(static_cast<int64_t>(losses.size()));
    checksums.push_back(
        RowChecksum(std::as_bytes(std::span(keeps).last(n_block)), std::as_bytes(std::span(row.windows))));
  }
  const std::string prefix = fmt::format("archive.{}.", index);
  const auto rows = static_cast<int64_t>(checksums.size());
  static_assert(sizeof(WindowLoss) == 2 * sizeof(double));
  Add<int16_t>(prefix + "keep", GGML_TYPE_I16, {static_cast<int64_t>(n_block), rows}, keeps);
  Add<int64_t>(prefix + "first", GGML_TYPE_I64, {rows + 1}, first);
  Add<uint64_t>(prefix + "row_xxh3", GGML_TYPE_I64, {rows}, checksums);
  Add<WindowLoss>(prefix + "loss", GGML_TYPE_F64, {2, static_cast<int64_t>(losses.size())}, losses);
}

std::string Encoder::SectionChecksum(const std::string& prefix) const {
  uint64_t hash = 0;
  for (const Section& section : sections_) {
    if (section.name.starts_with(prefix)) {
      hash = Hash64(section.data, hash);
    }
  }
  return ChecksumText(hash);
}

std::vector<std::byte> Encoder::Header(uint64_t copy_bytes) const {
  GgufHeader header;
  header.SetText(kHeaderChecksumKey, std::string(kChecksumDigits, '0'));
  SetModel(header);
  header.SetUint32("espalier.rankings", static_cast<uint32_t>(profile_.rankings.size()));
  for (size_t i = 0; i < profile_.rankings.size(); ++i) {
    SetRanking(header, i);
  }
  header.SetUint32("espalier.texts", static_cast<uint32_t>(profile_.texts.size()));
  for (size_t i = 0; i < profile_.texts.size(); ++i) {
    SetText(header, i);
  }
  header.SetUint32("espalier.agents", static_cast<uint32_t>(profile_.agents.size()));
  for (size_t i = 0; i < profile_.agents.size(); ++i) {
    SetAgent(header, i);
  }
  header.SetUint32("espalier.archives", static_cast<uint32_t>(profile_.archives.size()));
  for (size_t i = 0; i < profile_.archives.size(); ++i) {
    SetArchive(header, i);
  }
  for (const Section& section : sections_) {
    header.AddTensor(section.name, section.type, section.ne);
  }
  const auto copy_length = static_cast<int64_t>(copy_bytes);
  header.AddTensor(kHeaderCopy, GGML_TYPE_I8, {&copy_length, 1});
  return header.Bytes();
}

void Encoder::SetModel(GgufHeader& header) const {
  header.SetText("general.architecture", kArchitecture);
  header.SetText("general.name", fmt::format("Profile of {}", profile_.model_name));
  header.SetUint32("espalier.version", kVersion);
  header.SetText("espalier.model.fingerprint", profile_.model_fingerprint);
  header.SetText("espalier.model.name", profile_.model_name);
  header.SetText("espalier.model.quantization", profile_.quantization);
  header.SetUint32("espalier.model.layers", static_cast<uint32_t>(profile_.n_layer));
  header.SetUint32("espalier.model.embedding_length", static_cast<uint32_t>(profile_.n_embd));
  header.SetText("espalier.ablation", AblationName(profile_.ablation));
  header.SetText("espalier.primary_set", profile_.primary_set);
  header.SetText("espalier.statistics_set", profile_.statistics_set);
  if (!profile_.means.empty()) {
    header.SetText("espalier.means.xxh3", SectionChecksum("means"));
  }
}

void Encoder::SetRanking(GgufHeader& header, size_t index) const {
  const Ranking& ranking = profile_.rankings[index];
  const std::string prefix = fmt::format("espalier.ranking.{}.", index);
  header.SetText(prefix + "method", ranking.method);
  header.SetInt64(prefix + "kv_cells", ranking.kv_cells);
  header.SetUint64(prefix + "seed", ranking.seed);
  header.SetText(prefix + "xxh3", SectionChecksum(fmt::format("ranking.{}.", index)));
}

void Encoder::SetText(GgufHeader& header, size_t index) const {
  const TextSketch& text = profile_.texts[index];
  const std::string prefix = fmt::format("espalier.text.{}.", index);
  header.SetText(prefix + "corpus", text.corpus);
  header.SetText(prefix + "tokens_hash", text.tokens_hash);
  header.SetText(prefix + "xxh3", SectionChecksum(fmt::format("text.{}.", index)));
}

void Encoder::SetAgent(GgufHeader& header, size_t index) const {
  const Agent& agent = profile_.agents[index];
  const std::string prefix = fmt::format("espalier.agent.{}.", index);
  header.SetText(prefix + "network", agent.network);
  header.SetText(prefix + "reward", agent.reward);
  header.SetUint64(prefix + "seed", agent.seed);
  header.SetInt64(prefix + "state_version", agent.state_version);
  header.SetInt64(prefix + "episodes", agent.episodes);
  header.SetInt64(prefix + "planned", agent.planned);
  header.SetText(prefix + "trained_on", agent.trained_on);
  header.SetText(prefix + "xxh3", SectionChecksum(fmt::format("agent.{}.", index)));
}

void Encoder::SetArchive(GgufHeader& header, size_t index) const {
  const MeasurementSet& set = profile_.archives[index].set();
  const std::string prefix = fmt::format("espalier.archive.{}.", index);
  header.SetText(prefix + "corpus", set.corpus);
  header.SetText(prefix + "tokens_hash", set.tokens_hash);
  header.SetText(prefix + "protocol", set.protocol);
  header.SetInt64(prefix + "window_tokens", set.window_tokens);
  header.SetInt64(prefix + "windows", set.n_windows);
  header.SetInt64(prefix + "tokens_scored", set.tokens_scored);
  header.SetText(prefix + "key_type", set.key_type);
  header.SetText(prefix + "value_type", set.value_type);
  header.SetText(prefix + "ablation", AblationName(set.ablation));
  header.SetText(prefix + "means_hash", set.means_hash);
}

}  // namespace

Status WriteProfile(const Profile& profile, const std::string& path) {
  ESPALIER_RETURN_IF_ERROR(CheckProfile(profile));
  ESPALIER_ASSIGN_OR_RETURN(const auto writer, AtomicFileWriter::Create(path));
  ESPALIER_RETURN_IF_ERROR(Encoder(profile).Write(*writer));
  return writer->Commit();
}

}  // namespace espalier
