#include "profile/journal_records.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/hash.h"
#include "profile/profile_layout.h"

namespace espalier {
namespace {

using profile_layout::AppendBytes;
using profile_layout::ChecksumHolds;
using profile_layout::DecodeRow;
using profile_layout::IsPlausible;

using Bytes = std::span<const std::byte>;

constexpr std::string_view kMagic = "espalier-journal";
constexpr uint32_t kMarker = 0x4345'5245;  // "EREC" as bytes
constexpr size_t kRecordHead = 3 * sizeof(uint32_t);
constexpr size_t kChecksumBytes = sizeof(uint64_t);
// Bounds what a damaged length can make the reader do.
constexpr size_t kMaxPayload = size_t{1} << 20;
constexpr size_t kMaxText = 4096;
constexpr size_t kMaxWindowsInRecord = 32768;

void AppendText(std::vector<std::byte>& out, std::string_view text) {
  const std::string_view kept = text.substr(0, kMaxText);
  AppendBytes(out, static_cast<uint32_t>(kept.size()));
  const auto bytes = std::as_bytes(std::span(kept));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

void AppendRecord(std::vector<std::byte>& out, uint64_t seed, RecordType type, Bytes payload) {
  const size_t start = out.size();
  AppendBytes(out, kMarker);
  AppendBytes(out, static_cast<uint32_t>(type));
  AppendBytes(out, static_cast<uint32_t>(payload.size()));
  out.insert(out.end(), payload.begin(), payload.end());
  const uint64_t checksum = Hash64(Bytes(out).subspan(start), seed);
  AppendBytes(out, checksum);
}

// Reads values one behind the other; once there is too little, nothing more.
class Cursor {
 public:
  explicit Cursor(Bytes bytes) : rest_(bytes) {}

  template <class T>
  T Take() {
    T value = {};
    if (const Bytes raw = Raw(sizeof(T)); !raw.empty()) {
      std::memcpy(&value, raw.data(), sizeof(T));
    }
    return value;
  }
  std::string TakeText() {
    const auto length = Take<uint32_t>();
    if (length > kMaxText) {
      ok_ = false;
      return {};
    }
    const Bytes raw = Raw(length);
    std::string text(reinterpret_cast<const char*>(raw.data()), raw.size());
    ok_ = ok_ && text.find('\0') == std::string::npos;
    return text;
  }
  Bytes Raw(size_t length) {
    if (!ok_ || length > rest_.size()) {
      ok_ = false;
      return {};
    }
    const Bytes taken = rest_.first(length);
    rest_ = rest_.subspan(length);
    return taken;
  }
  bool ok() const { return ok_; }
  bool finished() const { return ok_ && rest_.empty(); }

 private:
  Bytes rest_;
  bool ok_ = true;
};

}  // namespace

std::vector<std::byte> EncodeJournalHeader(const Profile& profile) {
  std::vector<std::byte> out;
  const auto magic = std::as_bytes(std::span(kMagic));
  out.insert(out.end(), magic.begin(), magic.end());
  AppendBytes(out, kJournalVersion);
  AppendText(out, profile.model_fingerprint);
  AppendText(out, profile.model_name);
  AppendBytes(out, Hash64(out));
  return out;
}

std::optional<JournalHeader> DecodeJournalHeader(Bytes bytes) {
  Cursor cursor(bytes);
  const Bytes magic = cursor.Raw(kMagic.size());
  if (!cursor.ok() || std::memcmp(magic.data(), kMagic.data(), kMagic.size()) != 0) {
    return std::nullopt;
  }
  JournalHeader header;
  header.version = cursor.Take<uint32_t>();
  header.fingerprint = cursor.TakeText();
  header.model_name = cursor.TakeText();
  const size_t covered = kMagic.size() + 3 * sizeof(uint32_t) + header.fingerprint.size() + header.model_name.size();
  const auto checksum = cursor.Take<uint64_t>();
  if (!cursor.ok() || !ChecksumHolds(checksum, Hash64(bytes.first(covered)))) {
    return std::nullopt;
  }
  header.bytes = covered + kChecksumBytes;
  return header;
}

uint64_t JournalSeed(const std::string& fingerprint) { return Hash64(std::as_bytes(std::span(fingerprint))); }

uint64_t SetId(const MeasurementSet& set) {
  const std::string key = set.Key();
  return Hash64(std::as_bytes(std::span(key)));
}

void AppendSetRecord(std::vector<std::byte>& out, uint64_t seed, const MeasurementSet& set) {
  std::vector<std::byte> payload;
  for (const std::string* text :
       {&set.corpus, &set.tokens_hash, &set.protocol, &set.key_type, &set.value_type, &set.means_hash}) {
    AppendText(payload, *text);
  }
  AppendText(payload, AblationName(set.ablation));
  for (const int64_t number : {set.window_tokens, set.n_windows, set.tokens_scored}) {
    AppendBytes(payload, number);
  }
  AppendRecord(out, seed, RecordType::kSet, payload);
}

void AppendWindowRecords(std::vector<std::byte>& out, uint64_t seed, const WindowsRecord& record) {
  auto rest = record.losses;
  int64_t first = record.first_window;
  while (!rest.empty()) {
    const auto part = rest.first(std::min(rest.size(), kMaxWindowsInRecord));
    std::vector<std::byte> payload;
    AppendBytes(payload, SetId(*record.set));
    AppendBytes(payload, first);
    AppendBytes(payload, static_cast<uint32_t>(record.plan->n_block()));
    AppendBytes(payload, static_cast<uint32_t>(part.size()));
    for (int i = 0; i < record.plan->n_block(); ++i) {
      AppendBytes(payload, KeepToFixed(record.plan->keep({i})));
    }
    const auto windows = std::as_bytes(part);
    payload.insert(payload.end(), windows.begin(), windows.end());
    AppendRecord(out, seed, RecordType::kWindows, payload);
    rest = rest.subspan(part.size());
    first += static_cast<int64_t>(part.size());
  }
}

std::optional<RecordView> DecodeRecord(Bytes bytes, uint64_t seed) {
  Cursor cursor(bytes);
  const bool marked = cursor.Take<uint32_t>() == kMarker;
  RecordView record;
  record.type = cursor.Take<uint32_t>();
  const auto length = cursor.Take<uint32_t>();
  if (!cursor.ok() || !marked || length > kMaxPayload) {
    return std::nullopt;
  }
  record.payload = cursor.Raw(length);
  const auto checksum = cursor.Take<uint64_t>();
  if (!cursor.ok() || !ChecksumHolds(checksum, Hash64(bytes.first(kRecordHead + length), seed))) {
    return std::nullopt;
  }
  record.bytes = kRecordHead + length + kChecksumBytes;
  return record;
}

size_t FindRecordStart(Bytes bytes, size_t from) {
  const auto marker = std::as_bytes(std::span(&kMarker, 1));
  const auto found = std::search(bytes.begin() + static_cast<std::ptrdiff_t>(std::min(from, bytes.size())), bytes.end(),
                                 marker.begin(), marker.end());
  return static_cast<size_t>(found - bytes.begin());
}

std::optional<MeasurementSet> DecodeSet(Bytes payload) {
  Cursor cursor(payload);
  MeasurementSet set;
  for (std::string* text :
       {&set.corpus, &set.tokens_hash, &set.protocol, &set.key_type, &set.value_type, &set.means_hash}) {
    *text = cursor.TakeText();
  }
  const auto ablation = ParseAblation(cursor.TakeText());
  for (int64_t* number : {&set.window_tokens, &set.n_windows, &set.tokens_scored}) {
    *number = cursor.Take<int64_t>();
  }
  if (!cursor.finished() || !ablation.ok() || !IsPlausible(set)) {
    return std::nullopt;
  }
  set.ablation = *ablation;
  return set;
}

std::optional<DecodedWindows> DecodeWindows(Bytes payload, int n_layer) {
  Cursor cursor(payload);
  DecodedWindows windows;
  windows.set_id = cursor.Take<uint64_t>();
  windows.first_window = cursor.Take<int64_t>();
  const auto n_block = cursor.Take<uint32_t>();
  const auto count = cursor.Take<uint32_t>();
  if (!cursor.ok() || n_block != 2 * static_cast<uint32_t>(n_layer) || count > kMaxWindowsInRecord) {
    return std::nullopt;
  }
  const Bytes keeps = cursor.Raw(n_block * sizeof(int16_t));
  const Bytes losses = cursor.Raw(count * sizeof(WindowLoss));
  if (!cursor.finished()) {
    return std::nullopt;
  }
  auto row = DecodeRow(keeps, losses);
  if (!row) {
    return std::nullopt;
  }
  windows.plan = std::move(row->plan);
  windows.losses = std::move(row->windows);
  return windows;
}

}  // namespace espalier
