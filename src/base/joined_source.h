// Several byte sources as one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/status.h"

namespace espalier {

// The bytes of its parts, one part behind the other. A part that fails to be read gives its own error, which names it.
class JoinedSource final : public ByteSource {
 public:
  // REQUIRES: at least one part. kUnsupported if they have 2^63 bytes or more together.
  static Result<std::shared_ptr<const JoinedSource>> Join(std::vector<std::shared_ptr<const ByteSource>> parts);

  // The first part's.
  const std::string& name() const override { return parts_.front()->name(); }
  uint64_t size() const override { return starts_.back(); }
  Status ReadAt(uint64_t offset, std::span<std::byte> out) const override;
  uint64_t CachedBytes(uint64_t offset, uint64_t length) const override;
  void DropCache(uint64_t offset, uint64_t length) const override;

  // Where the part begins.
  uint64_t start(size_t part) const { return starts_[part]; }
  // The part that the byte is in. REQUIRES: offset < size()
  size_t PartAt(uint64_t offset) const;

 private:
  struct Piece {
    const ByteSource* part;
    uint64_t offset;  // in the part
    uint64_t length;
  };

  JoinedSource(std::vector<std::shared_ptr<const ByteSource>> parts, std::vector<uint64_t> starts)
      : parts_(std::move(parts)), starts_(std::move(starts)) {}
  // As much of [offset, offset + length) as lies in the part where it begins. REQUIRES: offset < size()
  Piece FirstPiece(uint64_t offset, uint64_t length) const;

  std::vector<std::shared_ptr<const ByteSource>> parts_;
  std::vector<uint64_t> starts_;  // of the parts, and the end of the last
};

}  // namespace espalier
