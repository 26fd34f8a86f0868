#include "base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/bytes.h"

namespace espalier {
namespace {

uint64_t PageSize() { return static_cast<uint64_t>(sysconf(_SC_PAGESIZE)); }

std::string SystemError(int error) { return std::strerror(error); }

const char* KindName(mode_t mode) {
  return S_ISDIR(mode)                    ? "a folder"
         : S_ISFIFO(mode)                 ? "a pipe"
         : S_ISSOCK(mode)                 ? "a socket"
         : S_ISCHR(mode) || S_ISBLK(mode) ? "a device"
                                          : "something else";
}

}  // namespace

Status ByteSource::CheckRange(uint64_t offset, uint64_t length) const {
  if (offset <= size() && length <= size() - offset) {
    return Status::Ok();
  }
  return Corrupt(fmt::format("{}: {} bytes wanted at offset {}, but it has {} bytes", name(), length, offset, size()));
}

Status MemorySource::ReadAt(uint64_t offset, std::span<std::byte> out) const {
  ESPALIER_RETURN_IF_ERROR(CheckRange(offset, out.size()));
  if (!out.empty()) {
    std::memcpy(out.data(), bytes_.data() + offset, out.size());
  }
  return Status::Ok();
}

Result<std::shared_ptr<const File>> File::Open(const std::string& path) {
  // O_NONBLOCK: opening a pipe would wait for somebody to write into it. Nothing to a regular file.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const int error = errno;
    return Status(error == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
                  fmt::format("{}: cannot open for reading: {}", path, SystemError(error)));
  }
  struct stat info = {};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    return IoError(fmt::format("{}: expected a regular file, found {}", path, KindName(info.st_mode)));
  }
  return std::shared_ptr<const File>(new File(path, fd, static_cast<uint64_t>(info.st_size)));
}

File::~File() { ::close(fd_); }

Status File::ReadAt(uint64_t offset, std::span<std::byte> out) const {
  ESPALIER_RETURN_IF_ERROR(CheckRange(offset, out.size()));
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t n = ::pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      return IoError(fmt::format("{}: reading at offset {} failed: {}", path_, offset + done, SystemError(errno)));
    }
    if (n == 0) {
      return IoError(
          fmt::format("{}: file shrank while it was in use: expected {} bytes, found {}", path_, size_, offset + done));
    }
    done += static_cast<size_t>(n);
  }
  return Status::Ok();
}

uint64_t File::CachedBytes(uint64_t offset, uint64_t length) const {
  if (length == 0 || !CheckRange(offset, length).ok()) {
    return 0;
  }
  const uint64_t page = PageSize();
  const uint64_t start = RoundDown(offset, page);
  const uint64_t span = offset + length - start;
  void* map = ::mmap(nullptr, span, PROT_READ, MAP_SHARED, fd_, static_cast<off_t>(start));
  if (map == MAP_FAILED) {
    return 0;
  }
  std::vector<unsigned char> resident((span + page - 1) / page);
  uint64_t cached = 0;
  if (::mincore(map, span, resident.data()) == 0) {
    cached = page * static_cast<uint64_t>(
                        std::count_if(resident.begin(), resident.end(), [](unsigned char r) { return (r & 1) != 0; }));
  }
  ::munmap(map, span);
  return cached;
}

void File::DropCache(uint64_t offset, uint64_t length) const {
  const uint64_t page = PageSize();
  const uint64_t begin = RoundUp(offset, page);
  const uint64_t end = RoundDown(offset + length, page);
  if (end > begin) {
    ::posix_fadvise(fd_, static_cast<off_t>(begin), static_cast<off_t>(end - begin), POSIX_FADV_DONTNEED);
  }
}

Result<std::unique_ptr<AtomicFileWriter>> AtomicFileWriter::Create(const std::string& path) {
  // Renaming over a device or a pipe would replace it for everybody.
  struct stat existing = {};
  if (::stat(path.c_str(), &existing) == 0 && !S_ISREG(existing.st_mode)) {
    return IoError(fmt::format("{}: exists and is not a regular file; expected one, or nothing there", path));
  }
  std::string temporary = path + ".tmp-XXXXXX";
  const int fd = ::mkostemp(temporary.data(), O_CLOEXEC);
  if (fd < 0) {
    return IoError(fmt::format("{}: cannot create a file there: {}", path, SystemError(errno)));
  }
  ::fchmod(fd, 0644);  // mkostemp makes it private; a model or report is not
  return std::unique_ptr<AtomicFileWriter>(new AtomicFileWriter(path, std::move(temporary), fd));
}

AtomicFileWriter::~AtomicFileWriter() {
  if (fd_ >= 0) {
    ::close(fd_);
    ::unlink(temporary_.c_str());
  }
}

Status AtomicFileWriter::Append(std::span<const std::byte> bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::write(fd_, bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      return IoError(fmt::format("{}: writing failed after {} bytes: {}", path_, size_ + done, SystemError(errno)));
    }
    done += static_cast<size_t>(n);
  }
  size_ += bytes.size();
  return Status::Ok();
}

Status AtomicFileWriter::Commit() {
  // Some file systems report a full disk only here.
  const bool synced = ::fsync(fd_) == 0;
  const int sync_error = errno;
  const bool closed = ::close(fd_) == 0;
  const int close_error = errno;
  fd_ = -1;
  if (!synced || !closed) {
    ::unlink(temporary_.c_str());
    return IoError(fmt::format("{}: writing failed: {}", path_, SystemError(synced ? close_error : sync_error)));
  }
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary_.c_str());
    return IoError(fmt::format("{}: cannot replace it: {}", path_, SystemError(error)));
  }
  return Status::Ok();
}

Result<std::string> ReadWholeFile(const std::string& path, uint64_t limit) {
  ESPALIER_ASSIGN_OR_RETURN(auto file, File::Open(path));
  if (file->size() > limit) {
    return InvalidArgument(fmt::format("{}: has {} bytes, expected at most {}", path, file->size(), limit));
  }
  std::string content(file->size(), '\0');
  ESPALIER_RETURN_IF_ERROR(file->ReadAt(0, std::as_writable_bytes(std::span(content))));
  return content;
}

Status WriteWholeFile(const std::string& path, std::string_view content) {
  ESPALIER_ASSIGN_OR_RETURN(auto writer, AtomicFileWriter::Create(path));
  ESPALIER_RETURN_IF_ERROR(writer->Append(std::as_bytes(std::span(content))));
  return writer->Commit();
}

}  // namespace espalier
