// What writer and reader of a profile's GGUF agree on (docs/formats/profile.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "profile/archive.h"

namespace espalier::profile_layout {

inline constexpr uint32_t kVersion = 1;
inline constexpr const char* kArchitecture = "espalier-profile";

// The first key, in every version. Its value, 16 hexadecimal digits, is the checksum of the whole header (all bytes in
// front of the first tensor's data), computed with 16 zeros in its place.
inline constexpr const char* kHeaderChecksumKey = "espalier.header.xxh3";
inline constexpr size_t kChecksumDigits = 16;

// The last tensor, in every version: the header once more, then its length (8 bytes) and kCopyMagic, which end the
// file.
inline constexpr const char* kHeaderCopy = "header_copy";
inline constexpr char kCopyMagic[25] = "espalier-profile-header\n";
inline constexpr size_t kCopyMagicBytes = 24;
inline constexpr size_t kCopyFooterBytes = 8 + kCopyMagicBytes;

// More of each is refused when writing, and ignored when reading.
inline constexpr uint32_t kMaxArchives = 256;
inline constexpr uint32_t kMaxRankings = 1024;
inline constexpr uint32_t kMaxTexts = 1024;
inline constexpr uint32_t kMaxAgents = 1024;
inline constexpr size_t kMaxAgentParameters = size_t{1} << 24;
inline constexpr int kMaxLayers = 512;
inline constexpr int64_t kMaxEmbedding = 1 << 20;

// The header's checksum as it should be. REQUIRES: the checksum key comes first.
std::string HeaderChecksum(std::span<const std::byte> header);
// Where the digits are in a header that begins with the checksum key; empty if it does not, or is too short.
std::span<std::byte> ChecksumDigits(std::span<std::byte> header);

std::string ChecksumText(uint64_t hash);

// Whether a checksum is what it should be. Fuzzing builds take any: the fuzzer could not guess one, and would never
// come to what lies behind it.
bool ChecksumHolds(std::string_view found, std::string_view expected);
bool ChecksumHolds(uint64_t found, uint64_t expected);

// A row's checksum: over its fractions and its windows, as they are on disk.
uint64_t RowChecksum(std::span<const std::byte> keeps, std::span<const std::byte> windows);
// The row; empty unless the fractions are within bounds and the losses finite.
std::optional<ArchiveRow> DecodeRow(std::span<const std::byte> keeps, std::span<const std::byte> windows);

// False for sets that nothing can have been measured on.
bool IsPlausible(const MeasurementSet& set);

template <class T>
T LoadAt(std::span<const std::byte> bytes, size_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

template <class T>
void AppendBytes(std::vector<std::byte>& out, const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

}  // namespace espalier::profile_layout
