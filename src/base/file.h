// Files: positioned reads that say what went wrong, and writes that either appear whole or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/status.h"

namespace espalier {

// Where a parser reads from: a file, or bytes in memory (tests, fuzzing). Implementations are safe to call from
// several threads at once.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Names the source in error messages: a path, "<memory>".
  virtual const std::string& name() const = 0;
  virtual uint64_t size() const = 0;
  // Fills `out` from `offset`. Fails if offset + out.size() > size(), or if the system fails to read.
  virtual Status ReadAt(uint64_t offset, std::span<std::byte> out) const = 0;

  // Bytes of [offset, offset + length) that are in the page cache now (whole pages counted). This memory is
  // reclaimable: the kernel takes it back when somebody needs it. 0 if the range is not in the source, if the system
  // cannot tell, and for a source that is no file.
  virtual uint64_t CachedBytes(uint64_t /*offset*/, uint64_t /*length*/) const { return 0; }

  // Asks the kernel to forget the whole pages inside [offset, offset + length), which must lie in the source. Best
  // effort; nothing for a source that is no file.
  virtual void DropCache(uint64_t /*offset*/, uint64_t /*length*/) const {}

 protected:
  // kCorrupt, naming the source, unless [offset, offset + length) lies in it.
  Status CheckRange(uint64_t offset, uint64_t length) const;
};

// Bytes owned by the caller, which must outlive the source.
class MemorySource final : public ByteSource {
 public:
  explicit MemorySource(std::span<const std::byte> bytes, std::string name = "<memory>")
      : bytes_(bytes), name_(std::move(name)) {}
  const std::string& name() const override { return name_; }
  uint64_t size() const override { return bytes_.size(); }
  Status ReadAt(uint64_t offset, std::span<std::byte> out) const override;

 private:
  std::span<const std::byte> bytes_;
  std::string name_;
};

// A regular file, opened read-only. The size is taken at Open: a file that shrinks afterwards gives a read error.
class File final : public ByteSource {
 public:
  // Fails with kNotFound, or kIo if it is not a regular file that can be read.
  static Result<std::shared_ptr<const File>> Open(const std::string& path);
  ~File() override;
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::string& name() const override { return path_; }
  uint64_t size() const override { return size_; }
  Status ReadAt(uint64_t offset, std::span<std::byte> out) const override;
  uint64_t CachedBytes(uint64_t offset, uint64_t length) const override;
  void DropCache(uint64_t offset, uint64_t length) const override;

 private:
  File(std::string path, int fd, uint64_t size) : path_(std::move(path)), fd_(fd), size_(size) {}

  std::string path_;
  int fd_;
  uint64_t size_;
};

// Writes to a temporary file beside the target; Commit() syncs and renames it over the target. Without Commit (an
// error, a disk that is full, an early return) the temporary is deleted and an existing target is left as it was.
// A target that exists must be a regular file: devices, pipes and folders are refused.
class AtomicFileWriter {
 public:
  static Result<std::unique_ptr<AtomicFileWriter>> Create(const std::string& path);
  ~AtomicFileWriter();
  AtomicFileWriter(const AtomicFileWriter&) = delete;
  AtomicFileWriter& operator=(const AtomicFileWriter&) = delete;

  Status Append(std::span<const std::byte> bytes);
  Status Commit();
  // Bytes appended so far.
  uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }

 private:
  AtomicFileWriter(std::string path, std::string temporary, int fd)
      : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}

  std::string path_;
  std::string temporary_;
  int fd_;
  uint64_t size_ = 0;
};

// The whole file as bytes; refuses files over `limit` bytes.
Result<std::string> ReadWholeFile(const std::string& path, uint64_t limit);

// Replaces `path` by `content`, whole or not at all.
Status WriteWholeFile(const std::string& path, std::string_view content);

}  // namespace espalier
