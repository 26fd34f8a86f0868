#include "base/process_memory.h"

#include <malloc.h>

#include <cinttypes>
#include <cstdio>

namespace espalier {

Result<ProcessMemory> ReadProcessMemory() {
  std::FILE* file = std::fopen("/proc/self/smaps_rollup", "re");
  if (file == nullptr) {
    return Status(ErrorCode::kIo, "/proc/self/smaps_rollup: cannot open; memory cannot be measured on this system");
  }
  ProcessMemory memory;
  char line[256];
  while (std::fgets(line, sizeof line, file) != nullptr) {
    uint64_t kib = 0;
    if (std::sscanf(line, "Rss: %" SCNu64 " kB", &kib) == 1) {
      memory.resident_bytes = kib * 1024;
    } else if (std::sscanf(line, "Anonymous: %" SCNu64 " kB", &kib) == 1) {
      memory.anonymous_bytes = kib * 1024;
    }
  }
  std::fclose(file);
  memory.file_bytes = memory.resident_bytes - memory.anonymous_bytes;
  return memory;
}

void ReturnFreedMemoryToSystem() {
  mallopt(M_MMAP_THRESHOLD, 64 * 1024);
  mallopt(M_TRIM_THRESHOLD, 128 * 1024);
  malloc_trim(0);
}

}  // namespace espalier
