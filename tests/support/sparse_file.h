// Files of many GiB that take next to none of the disk, for offsets that need more than 32 bits.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace espalier::test {

inline constexpr const char* kNoSparseFiles = "the file system has no sparse files, or none of this size: ";

// Makes `path` a file of `size` bytes, all zero, none of them on disk. False, with nothing left there, where the file
// system cannot: skip the test then. Asked of a small file first, as a large one of real zeros would fill the disk.
inline bool MakeSparse(const std::string& path, uint64_t size) {
  constexpr off_t kProbe = 16 << 20;
  const int fd = ::open(path.c_str(), O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) {
    return false;
  }
  struct stat info = {};
  const bool made = ::ftruncate(fd, kProbe) == 0 && ::fstat(fd, &info) == 0 && info.st_blocks * 512 < kProbe / 16 &&
                    ::ftruncate(fd, static_cast<off_t>(size)) == 0;
  ::close(fd);
  if (!made) {
    ::unlink(path.c_str());
  }
  return made;
}

inline bool WriteAt(const std::string& path, uint64_t offset, std::string_view bytes) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) {
    return false;
  }
  const ssize_t written = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
  ::close(fd);
  return written == static_cast<ssize_t>(bytes.size());
}

}  // namespace espalier::test
