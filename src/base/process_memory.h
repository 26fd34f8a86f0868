// What the kernel says this process holds. The truth that predictions are compared with.
#pragma once

#include <cstdint>

#include "base/status.h"

namespace espalier {

struct ProcessMemory {
  uint64_t resident_bytes = 0;   // anonymous + file pages mapped in
  uint64_t anonymous_bytes = 0;  // private memory: what an OOM killer counts; the kernel cannot take it back
  uint64_t file_bytes = 0;       // resident - anonymous: mappings of files, reclaimable when clean
};

// Reads /proc/self/smaps_rollup (about 1 ms on a process of many mappings: not for every token).
Result<ProcessMemory> ReadProcessMemory();

// Returns freed heap memory to the system, and fixes glibc's mmap threshold at 64 KiB so that every large allocation
// is a mapping of its own and is given back when freed. Without this glibc raises the threshold after the first large
// free, and the *second* release of a weight block frees nothing (measured: 577 -> 574 MiB). Call at start,
// before large allocations; ggml's own buffers come from malloc. Later calls return what was freed since.
void ReturnFreedMemoryToSystem();

}  // namespace espalier
