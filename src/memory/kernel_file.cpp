#include "memory/kernel_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "base/bytes.h"
#include "model/quote.h"

namespace espalier {
namespace {

constexpr size_t kMaxFileBytes = 256 * kKiB;

// ENODEV: the cgroup was removed between open and read.
bool MeansGone(int error) { return error == ENOENT || error == ENOTDIR || error == ENODEV; }

Status ReadError(const std::string& path, int error) {
  return Status(MeansGone(error) ? ErrorCode::kNotFound : ErrorCode::kIo,
                fmt::format("{}: cannot be read: {}", path, std::strerror(error)));
}

}  // namespace

Result<std::string> ReadKernelFile(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    return ReadError(path, errno);
  }
  std::string content;
  char buffer[8 * kKiB];
  while (content.size() <= kMaxFileBytes) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      const int error = errno;
      ::close(fd);
      return ReadError(path, error);
    }
    if (n == 0) {
      ::close(fd);
      return content;
    }
    content.append(buffer, static_cast<size_t>(n));
  }
  ::close(fd);
  return IoError(fmt::format("{}: has more than the {} bytes expected of such a file", path, kMaxFileBytes));
}

Result<uint64_t> KernelField(const std::string& name, std::string_view content, std::string_view key) {
  while (!content.empty()) {
    const size_t end = std::min(content.find('\n'), content.size());
    std::string_view line = content.substr(0, end);
    content.remove_prefix(std::min(end + 1, content.size()));
    if (line.substr(0, key.size()) != key) {
      continue;
    }
    line.remove_prefix(key.size());
    const size_t digits = line.find_first_not_of(": \t");
    if (!line.empty() && digits == 0) {
      continue;  // a longer key
    }
    line.remove_prefix(std::min(digits, line.size()));
    uint64_t value = 0;
    const auto [rest, error] = std::from_chars(line.data(), line.data() + line.size(), value);
    if (error != std::errc() || (rest != line.data() + line.size() && *rest != ' ')) {
      return Corrupt(fmt::format("{}: '{}' expected a number, found {}", name, key, Quote(line.substr(0, 40))));
    }
    return value;
  }
  return NotFound(fmt::format("{}: has no line '{}'", name, key));
}

}  // namespace espalier
