#include "base/bytes.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>

namespace espalier {

Result<uint64_t> ParseBytes(std::string_view text) {
  const auto bad = [&](std::string_view why) {
    return InvalidArgument(
        fmt::format("byte size '{}': {}; expected a number with an optional unit, such as 700MiB, 2.5GiB or 1048576",
                    text.substr(0, 64), why));
  };
  double number = 0;
  const char* end = text.data() + text.size();
  auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || !std::isfinite(number)) {
    return bad("no number found");
  }
  if (number < 0 || std::signbit(number)) {
    return bad("negative");
  }
  std::string unit;
  for (; rest != end; ++rest) {
    if (*rest != ' ') {
      unit += static_cast<char>(std::tolower(static_cast<unsigned char>(*rest)));
    }
  }
  static constexpr std::array<std::pair<std::string_view, double>, 14> kUnits = {{
      {"", 1},
      {"b", 1},
      {"k", 0x1p10},
      {"m", 0x1p20},
      {"g", 0x1p30},
      {"t", 0x1p40},
      {"kib", 0x1p10},
      {"mib", 0x1p20},
      {"gib", 0x1p30},
      {"tib", 0x1p40},
      {"kb", 1e3},
      {"mb", 1e6},
      {"gb", 1e9},
      {"tb", 1e12},
  }};
  const auto* found = std::find_if(kUnits.begin(), kUnits.end(), [&](const auto& u) { return u.first == unit; });
  if (found == kUnits.end()) {
    return bad("unknown unit");
  }
  const double bytes = number * found->second;
  if (bytes >= 0x1p63) {
    return bad("too large");
  }
  return static_cast<uint64_t>(std::llround(bytes));
}

std::string FormatBytes(uint64_t bytes) {
  if (bytes < kKiB) {
    return fmt::format("{} B", bytes);
  }
  static constexpr std::array<const char*, 5> kNames = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes) / 1024.0;
  size_t i = 0;
  while (value >= 1023.95 && i + 1 < kNames.size()) {
    value /= 1024.0;
    ++i;
  }
  return fmt::format("{:.1f} {}", value, kNames[i]);
}

}  // namespace espalier
