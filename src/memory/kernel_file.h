// Small files that the kernel writes while they are read (/proc, cgroups). fstat gives them no size, or a wrong one, so
// ReadWholeFile of base/file.h finds nothing in them; these are read to the end.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace espalier {

// The whole file. kNotFound if it does not exist, or belongs to a cgroup that has just gone; kIo if it cannot be read,
// or has more than 256 KiB, which no such file has. Never waits, not even for a pipe without a writer.
Result<std::string> ReadKernelFile(const std::string& path);

// The number behind `key` at the start of a line: "anon 4096" (memory.stat) or "MemTotal:  24684084 kB" (meminfo, in
// KiB then: the unit is the caller's to know). kNotFound without such a line, kCorrupt if no number below 2^64 follows.
// `name` is the file's, for messages.
Result<uint64_t> KernelField(const std::string& name, std::string_view content, std::string_view key);

}  // namespace espalier
