#include "memory/system_memory.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdio>

#include "base/bytes.h"
#include "memory/kernel_file.h"
#include "model/quote.h"

namespace espalier {
namespace {

constexpr uint64_t kMaxKiB = uint64_t{1} << 52;  // 4 EiB: more is no machine's, and would overflow in bytes

Result<uint64_t> FieldBytes(const std::string& path, const std::string& content, std::string_view key) {
  ESPALIER_ASSIGN_OR_RETURN(const uint64_t kib, KernelField(path, content, key));
  if (kib > kMaxKiB) {
    return Corrupt(fmt::format("{}: '{}' expected at most {} kB, found {}", path, key, kMaxKiB, kib));
  }
  return kib * kKiB;
}

}  // namespace

Result<SystemMemory> ReadSystemMemory(const std::string& path) {
  ESPALIER_ASSIGN_OR_RETURN(const std::string content, ReadKernelFile(path));
  SystemMemory memory;
  ESPALIER_ASSIGN_OR_RETURN(memory.total_bytes, FieldBytes(path, content, "MemTotal"));
  const Result<uint64_t> available = FieldBytes(path, content, "MemAvailable");
  if (!available.ok() && available.status().code() == ErrorCode::kNotFound) {
    return Unsupported(fmt::format("{}: has no MemAvailable, which Linux gives since 3.14", path));
  }
  ESPALIER_RETURN_IF_ERROR(available.status());
  memory.available_bytes = *available;
  return memory;
}

Result<uint64_t> ReadOwnAnonymousBytes(const std::string& path) {
  ESPALIER_ASSIGN_OR_RETURN(const std::string content, ReadKernelFile(path));
  uint64_t total = 0;
  uint64_t resident = 0;
  uint64_t shared = 0;  // pages of files and of shared memory
  if (std::sscanf(content.c_str(), "%" SCNu64 " %" SCNu64 " %" SCNu64, &total, &resident, &shared) != 3) {
    return Corrupt(fmt::format("{}: expected three numbers of pages, found {}", path, Quote(content.substr(0, 40))));
  }
  // The counters are read one after the other, so `shared` may come out larger.
  return resident > shared ? (resident - shared) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) : 0;
}

}  // namespace espalier
