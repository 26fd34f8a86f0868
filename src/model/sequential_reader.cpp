#include "model/sequential_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/bytes.h"

namespace espalier {
namespace {

constexpr uint64_t kWindowBytes = kMiB;

}  // namespace

Status SequentialReader::Read(std::span<std::byte> out, std::string_view what) {
  if (out.size() > remaining()) {
    return Corrupt(fmt::format("{}: truncated: {} needs {} bytes at offset {}, found {}", source_.name(), what,
                               out.size(), position_, remaining()));
  }
  while (!out.empty()) {
    if (position_ < window_start_ || position_ >= window_start_ + window_.size()) {
      ESPALIER_RETURN_IF_ERROR(FillWindow());
    }
    const uint64_t at = position_ - window_start_;
    const uint64_t n = std::min<uint64_t>(out.size(), window_.size() - at);
    std::memcpy(out.data(), window_.data() + at, n);
    out = out.subspan(n);
    position_ += n;
  }
  return Status::Ok();
}

Result<std::string> SequentialReader::String(uint64_t lowest, uint64_t highest, std::string_view what) {
  ESPALIER_ASSIGN_OR_RETURN(const auto length, Number<uint64_t>(what));
  if (length < lowest || length > highest) {
    return Corrupt(fmt::format("{}: length of {} at offset {}: expected {} to {} bytes, found {}", source_.name(), what,
                               position_ - sizeof(uint64_t), lowest, highest, length));
  }
  if (length > remaining()) {
    return Corrupt(fmt::format("{}: truncated: {} needs {} bytes at offset {}, found {}", source_.name(), what, length,
                               position_, remaining()));
  }
  std::string text(length, '\0');
  ESPALIER_RETURN_IF_ERROR(Read(std::as_writable_bytes(std::span(text)), what));
  return text;
}

Status SequentialReader::FillWindow() {
  window_start_ = position_;
  window_.resize(std::min(kWindowBytes, remaining()));
  return source_.ReadAt(window_start_, window_);
}

}  // namespace espalier
