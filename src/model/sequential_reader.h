// Reads numbers and strings off a ByteSource, one behind the other.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/status.h"

namespace espalier {

// Reads ahead in windows, so that neither the file nor any count in it decides how much memory is held at once. The
// source must outlive the reader. Not safe to share between threads.
class SequentialReader {
 public:
  explicit SequentialReader(const ByteSource& source) : source_(source) {}

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return source_.size() - position_; }

  // Fills `out`. Fails if fewer bytes remain; `what` names the object for the error.
  Status Read(std::span<std::byte> out, std::string_view what);

  // A number in little-endian order, like the machines we run on.
  template <class T>
  Result<T> Number(std::string_view what) {
    static_assert(std::endian::native == std::endian::little);
    std::array<std::byte, sizeof(T)> bytes;
    ESPALIER_RETURN_IF_ERROR(Read(bytes, what));
    return std::bit_cast<T>(bytes);
  }

  // A 64-bit length and as many bytes. Fails on lengths outside [lowest, highest], before it allocates anything.
  Result<std::string> String(uint64_t lowest, uint64_t highest, std::string_view what);

 private:
  Status FillWindow();

  const ByteSource& source_;
  uint64_t position_ = 0;
  uint64_t window_start_ = 0;
  std::vector<std::byte> window_;
};

}  // namespace espalier
