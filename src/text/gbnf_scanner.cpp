#include "text/gbnf_scanner.h"

#include <fmt/format.h>

#include <algorithm>

#include "model/quote.h"

namespace espalier {

bool IsGbnfDigit(char c) { return c >= '0' && c <= '9'; }
bool IsGbnfWord(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || IsGbnfDigit(c); }
bool IsGbnfHex(char c) { return IsGbnfDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

Status GbnfScanner::CheckNoZero() {
  at = std::min(text.find('\0'), text.size());
  const Status status = at_end() ? Status::Ok() : Wrong("text without zero bytes");
  at = 0;
  return status;
}

Status GbnfScanner::Wrong(std::string_view expected) const {
  constexpr size_t kShown = 12;
  const std::string_view rest = text.substr(std::min(at, text.size()), kShown);
  return InvalidArgument(fmt::format("grammar: byte {}: expected {}, found {}", at, expected,
                                     rest.empty() ? "the end" : Quote(std::string(rest))));
}

void GbnfScanner::SkipSpace(bool newlines) {
  for (;; ++at) {
    if (Now() == '#') {
      at = std::min(text.find_first_of("\r\n", at), text.size());
    }
    const char c = Now();
    if (c != ' ' && c != '\t' && !(newlines && (c == '\r' || c == '\n'))) {
      return;
    }
  }
}

std::string GbnfScanner::TakeName() {
  const size_t begin = at;
  while (IsGbnfWord(Now())) {
    ++at;
  }
  return std::string(text.substr(begin, at - begin));
}

Result<uint32_t> GbnfScanner::TakeCharacter(std::string_view end) {
  if (at >= text.size()) {
    return Wrong(end);
  }
  if (Now() != '\\') {
    return TakeUtf8();
  }
  const char kind = Now(1);
  if (kind == 'x' || kind == 'u' || kind == 'U') {
    return TakeHex(kind == 'x' ? 2 : kind == 'u' ? 4 : 8);
  }
  if (kind == '\0' || std::string_view("trn\\\"[]").find(kind) == std::string_view::npos) {
    return Wrong(R"(one of the escapes \t \r \n \\ \" \[ \] \xHH \uHHHH \UHHHHHHHH)");
  }
  at += 2;
  return static_cast<uint32_t>(kind == 't' ? '\t' : kind == 'r' ? '\r' : kind == 'n' ? '\n' : kind);
}

Result<uint32_t> GbnfScanner::TakeHex(size_t digits) {
  uint32_t value = 0;
  for (size_t i = 0; i < digits; ++i) {
    const char c = Now(2 + i);
    if (!IsGbnfHex(c)) {
      return Wrong(fmt::format("{} hexadecimal digits in the escape", digits));
    }
    value = value * 16 + static_cast<uint32_t>(IsGbnfDigit(c) ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  at += 2 + digits;
  return value;
}

// libllama goes by the first byte only, and would take a quote for the rest of a character.
Result<uint32_t> GbnfScanner::TakeUtf8() {
  const auto first = static_cast<unsigned char>(Now());
  const size_t bytes = first < 0x80 ? 1 : first < 0xC0 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF8 ? 4 : 0;
  uint32_t value = bytes <= 1 ? first : first & (0x7Fu >> bytes);
  for (size_t i = 1; i < bytes; ++i) {
    const auto next = static_cast<unsigned char>(Now(i));
    if ((next & 0xC0) != 0x80) {
      return Wrong("UTF-8");
    }
    value = (value << 6) + (next & 0x3F);
  }
  if (bytes == 0) {
    return Wrong("UTF-8");
  }
  at += bytes;
  return value;
}

std::optional<uint64_t> GbnfScanner::TakeNumber(uint64_t most) {
  if (!IsGbnfDigit(Now())) {
    return std::nullopt;
  }
  uint64_t number = 0;
  for (; IsGbnfDigit(Now()); ++at) {
    number = std::min(number * 10 + static_cast<uint64_t>(Now() - '0'), most);
  }
  return number;
}

}  // namespace espalier
