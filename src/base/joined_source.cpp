#include "base/joined_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/check.h"

namespace espalier {

Result<std::shared_ptr<const JoinedSource>> JoinedSource::Join(std::vector<std::shared_ptr<const ByteSource>> parts) {
  ESPALIER_CHECK(!parts.empty());
  constexpr uint64_t kMost = std::numeric_limits<int64_t>::max();  // as of one file
  std::vector<uint64_t> starts = {0};
  for (const auto& part : parts) {
    if (part->size() > kMost - starts.back()) {
      return Unsupported(fmt::format("{}: expected at most {} bytes in it and the {} parts before it, found {} and {}",
                                     part->name(), kMost, starts.size() - 1, part->size(), starts.back()));
    }
    starts.push_back(starts.back() + part->size());
  }
  return std::shared_ptr<const JoinedSource>(new JoinedSource(std::move(parts), std::move(starts)));
}

size_t JoinedSource::PartAt(uint64_t offset) const {
  // Of parts without bytes, which begin at the same place, none.
  const auto next = std::upper_bound(starts_.begin(), starts_.end(), offset);
  return static_cast<size_t>(next - starts_.begin()) - 1;
}

JoinedSource::Piece JoinedSource::FirstPiece(uint64_t offset, uint64_t length) const {
  const size_t part = PartAt(offset);
  return {parts_[part].get(), offset - starts_[part], std::min(length, starts_[part + 1] - offset)};
}

Status JoinedSource::ReadAt(uint64_t offset, std::span<std::byte> out) const {
  ESPALIER_RETURN_IF_ERROR(CheckRange(offset, out.size()));
  while (!out.empty()) {
    const Piece piece = FirstPiece(offset, out.size());
    ESPALIER_RETURN_IF_ERROR(piece.part->ReadAt(piece.offset, out.first(piece.length)));
    out = out.subspan(piece.length);
    offset += piece.length;
  }
  return Status::Ok();
}

uint64_t JoinedSource::CachedBytes(uint64_t offset, uint64_t length) const {
  if (!CheckRange(offset, length).ok()) {
    return 0;
  }
  uint64_t cached = 0;
  for (const uint64_t end = offset + length; offset < end;) {
    const Piece piece = FirstPiece(offset, end - offset);
    cached += piece.part->CachedBytes(piece.offset, piece.length);
    offset += piece.length;
  }
  return cached;
}

void JoinedSource::DropCache(uint64_t offset, uint64_t length) const {
  if (!CheckRange(offset, length).ok()) {
    return;
  }
  for (const uint64_t end = offset + length; offset < end;) {
    const Piece piece = FirstPiece(offset, end - offset);
    piece.part->DropCache(piece.offset, piece.length);
    offset += piece.length;
  }
}

}  // namespace espalier
