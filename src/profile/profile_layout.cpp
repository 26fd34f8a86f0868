#include "profile/profile_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/hash.h"

namespace espalier::profile_layout {

std::span<std::byte> ChecksumDigits(std::span<std::byte> header) {
  constexpr std::string_view kKey = kHeaderChecksumKey;
  constexpr size_t kKeyAt = 4 + 4 + 8 + 8 + 8;                // magic, version, two counts, length of the key
  constexpr size_t kDigitsAt = kKeyAt + kKey.size() + 4 + 8;  // type of the value, length of the text
  if (header.size() < kDigitsAt + kChecksumDigits ||
      std::memcmp(header.data() + kKeyAt, kKey.data(), kKey.size()) != 0) {
    return {};
  }
  return header.subspan(kDigitsAt, kChecksumDigits);
}

bool ChecksumHolds([[maybe_unused]] std::string_view found, [[maybe_unused]] std::string_view expected) {
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
  return true;
#else
  return found == expected;
#endif
}

bool ChecksumHolds([[maybe_unused]] uint64_t found, [[maybe_unused]] uint64_t expected) {
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
  return true;
#else
  return found == expected;
#endif
}

std::string ChecksumText(uint64_t hash) { return fmt::format("{:016x}", hash); }

std::string HeaderChecksum(std::span<const std::byte> header) {
  std::vector<std::byte> copy(header.begin(), header.end());
  const auto digits = ChecksumDigits(copy);
  ESPALIER_CHECK(!digits.empty());
  std::fill(digits.begin(), digits.end(), std::byte{'0'});
  return ChecksumText(Hash64(copy));
}

uint64_t RowChecksum(std::span<const std::byte> keeps, std::span<const std::byte> windows) {
  return Hash64(windows, Hash64(keeps));
}

std::optional<ArchiveRow> DecodeRow(std::span<const std::byte> keeps, std::span<const std::byte> windows) {
  const size_t n_block = keeps.size() / sizeof(int16_t);
  ArchiveRow row{Plan::Dense(static_cast<int>(n_block / 2)),
                 std::vector<WindowLoss>(windows.size() / sizeof(WindowLoss))};
  for (size_t i = 0; i < n_block; ++i) {
    const auto keep = LoadAt<int16_t>(keeps, i);
    if (keep < 0 || keep > kWholeKeep) {
      return std::nullopt;
    }
    row.plan.set_keep({static_cast<int>(i)}, KeepFromFixed(keep));
  }
  if (!row.windows.empty()) {
    std::memcpy(row.windows.data(), windows.data(), row.windows.size() * sizeof(WindowLoss));
  }
  const bool finite = std::all_of(row.windows.begin(), row.windows.end(), [](const WindowLoss& window) {
    return std::isfinite(window.kl) && std::isfinite(window.nll);
  });
  return finite ? std::optional(std::move(row)) : std::nullopt;
}

bool IsPlausible(const MeasurementSet& set) {
  constexpr int64_t kMost = int64_t{1} << 40;
  for (const int64_t number : {set.window_tokens, set.n_windows, set.tokens_scored}) {
    if (number < 1 || number > kMost) {
      return false;
    }
  }
  return true;
}

}  // namespace espalier::profile_layout
