// Byte quantities as people write them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace espalier {

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB;

// Parses "700MiB", "2.5 GiB", "1GB", "4096" (bytes). K/M/G/T alone and KiB/MiB/GiB/TiB are powers of 1024, as in
// llama.cpp and systemd; kB/MB/GB/TB are powers of 1000. Case does not matter.
// Fails on anything else, on negative numbers, and on what does not fit into 63 bits.
Result<uint64_t> ParseBytes(std::string_view text);

// "29.6 MiB": one decimal from KiB up, for people; JSON carries the integer.
std::string FormatBytes(uint64_t bytes);

// `value` rounded up to a multiple of `unit`. REQUIRES: unit > 0, no overflow.
constexpr uint64_t RoundUp(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }
constexpr uint64_t RoundDown(uint64_t value, uint64_t unit) { return value / unit * unit; }

}  // namespace espalier
