#include "eval/python_text.h"

#include <algorithm>
#include <cstddef>

namespace espalier {
namespace {

bool IsContinuation(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) == 0x80; }

// str.isspace of the one code point that `bytes` are.
bool IsSpace(std::string_view bytes) {
  uint32_t c = static_cast<unsigned char>(bytes[0]);
  if (bytes.size() > 1) {
    c &= 0xffu >> (bytes.size() + 1);
    for (const char byte : bytes.substr(1)) {
      c = (c << 6) | (static_cast<unsigned char>(byte) & 0x3fu);
    }
  }
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

// The code point at either end. REQUIRES: text is not empty.
std::string_view First(std::string_view text) {
  size_t length = 1;
  while (length < std::min<size_t>(4, text.size()) && IsContinuation(text[length])) {
    ++length;
  }
  return text.substr(0, length);
}
std::string_view Last(std::string_view text) {
  size_t length = 1;
  while (length < std::min<size_t>(4, text.size()) && IsContinuation(text[text.size() - length])) {
    ++length;
  }
  return text.substr(text.size() - length);
}

}  // namespace

int64_t CountCharacters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char byte) { return !IsContinuation(byte); });
}

std::string_view StripRight(std::string_view text) {
  while (!text.empty() && IsSpace(Last(text))) {
    text.remove_suffix(Last(text).size());
  }
  return text;
}

std::string_view Strip(std::string_view text) {
  text = StripRight(text);
  while (!text.empty() && IsSpace(First(text))) {
    text.remove_prefix(First(text).size());
  }
  return text;
}

}  // namespace espalier
