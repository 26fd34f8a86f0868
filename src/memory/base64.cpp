#include "memory/base64.h"

#include <fmt/format.h>

#include <cstdint>

#include "model/quote.h"

namespace espalier {
namespace {

constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

Result<std::string> DecodeBase64(std::string_view text) {
  if (text.size() % 4 != 0) {
    return InvalidArgument(fmt::format("base64 {}: expected a multiple of 4 characters, found {}",
                                       Quote(text.substr(0, 40)), text.size()));
  }
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  std::string bytes;
  uint32_t bits = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const size_t digit = i < text.size() - padding ? kAlphabet.find(text[i]) : 0;
    if (digit == kAlphabet.npos) {
      return InvalidArgument(
          fmt::format("base64 {}: character {} is none of base64's", Quote(text.substr(0, 40)), i + 1));
    }
    bits = bits << 6 | static_cast<uint32_t>(digit);
    if (i % 4 == 3) {
      bytes += {static_cast<char>(bits >> 16), static_cast<char>(bits >> 8), static_cast<char>(bits)};
      bits = 0;
    }
  }
  for (size_t i = bytes.size() - padding; i < bytes.size(); ++i) {
    if (bytes[i] != 0) {
      return InvalidArgument(fmt::format("base64 {}: bits set beyond the last byte", Quote(text.substr(0, 40))));
    }
  }
  bytes.resize(bytes.size() - padding);
  return bytes;
}

}  // namespace espalier
