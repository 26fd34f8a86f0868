// The bytes of a journal: header and records (docs/formats/profile.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/plan.h"
#include "profile/archive.h"
#include "profile/profile.h"

namespace espalier {

inline constexpr uint32_t kJournalVersion = 1;

struct JournalHeader {
  uint32_t version = 0;
  std::string fingerprint;
  std::string model_name;
  uint64_t bytes = 0;  // of the header itself
};

std::vector<std::byte> EncodeJournalHeader(const Profile& profile);
// Empty if the bytes do not begin with a sound header (of any version).
std::optional<JournalHeader> DecodeJournalHeader(std::span<const std::byte> bytes);

// Seed of the records' checksums: a record of another model never checks out, even where the header is lost.
uint64_t JournalSeed(const std::string& fingerprint);

enum class RecordType : uint32_t { kSet = 1, kWindows = 2 };

struct WindowsRecord {
  const MeasurementSet* set;
  const Plan* plan;
  int64_t first_window;
  std::span<const WindowLoss> losses;
};

void AppendSetRecord(std::vector<std::byte>& out, uint64_t seed, const MeasurementSet& set);
// Several records where one would grow beyond kMaxRecordBytes.
void AppendWindowRecords(std::vector<std::byte>& out, uint64_t seed, const WindowsRecord& record);

// A record that checks out.
struct RecordView {
  uint32_t type = 0;
  std::span<const std::byte> payload;
  uint64_t bytes = 0;  // of the whole record
};
// The record that `bytes` begin with; empty if they do not begin with a sound one.
std::optional<RecordView> DecodeRecord(std::span<const std::byte> bytes, uint64_t seed);
// Where the next record may begin, from `from` on; bytes.size() if nowhere.
size_t FindRecordStart(std::span<const std::byte> bytes, size_t from);

struct DecodedWindows {
  uint64_t set_id = 0;
  int64_t first_window = 0;
  Plan plan;
  std::vector<WindowLoss> losses;
};

// By what window records name their set.
uint64_t SetId(const MeasurementSet& set);
// Empty if a payload is not what its type says. Plans must have 2 * n_layer blocks.
std::optional<MeasurementSet> DecodeSet(std::span<const std::byte> payload);
std::optional<DecodedWindows> DecodeWindows(std::span<const std::byte> payload, int n_layer);

}  // namespace espalier
