// What the machine has left, and what of it is ours, by readings cheap enough for several times a second.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace espalier {

struct SystemMemory {
  uint64_t total_bytes = 0;
  // What programs can still get without swapping, page cache that can be dropped included: the kernel's own estimate.
  uint64_t available_bytes = 0;
};

// Reads MemTotal and MemAvailable (about 10 us). kUnsupported if there is no MemAvailable (Linux before 3.14),
// kCorrupt if what stands there is no number.
Result<SystemMemory> ReadSystemMemory(const std::string& path = "/proc/meminfo");

// Anonymous resident bytes of this process, from the kernel's counters (about 6 us, where the walk behind
// ReadProcessMemory of base/process_memory.h takes 1 ms). The kernel keeps these counters per CPU, so they may be off
// by some hundred KiB: for steering, not for reports.
Result<uint64_t> ReadOwnAnonymousBytes(const std::string& path = "/proc/self/statm");

}  // namespace espalier
