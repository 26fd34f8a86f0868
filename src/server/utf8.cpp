#include "server/utf8.h"

namespace espalier {
namespace {

// What the second byte of a character may be: the lead bytes E0, ED, F0 and F4 leave out overlong forms, surrogates and
// what lies beyond U+10FFFF.
struct Lead {
  size_t bytes;
  unsigned char second_from;
  unsigned char second_to;
};

Lead LeadOf(unsigned char lead) {
  if (lead < 0x80) {
    return {1, 0, 0};
  }
  if (lead >= 0xc2 && lead <= 0xdf) {
    return {2, 0x80, 0xbf};
  }
  if (lead >= 0xe0 && lead <= 0xef) {
    return {3, static_cast<unsigned char>(lead == 0xe0 ? 0xa0 : 0x80),
            static_cast<unsigned char>(lead == 0xed ? 0x9f : 0xbf)};
  }
  if (lead >= 0xf0 && lead <= 0xf4) {
    return {4, static_cast<unsigned char>(lead == 0xf0 ? 0x90 : 0x80),
            static_cast<unsigned char>(lead == 0xf4 ? 0x8f : 0xbf)};
  }
  return {0, 0, 0};
}

void AppendEscaped(char c, std::string* out) {
  constexpr char kHex[] = "0123456789abcdef";
  switch (c) {
    case '"':
      *out += "\\\"";
      return;
    case '\\':
      *out += "\\\\";
      return;
    case '\n':
      *out += "\\n";
      return;
    case '\r':
      *out += "\\r";
      return;
    case '\t':
      *out += "\\t";
      return;
    case '\b':
      *out += "\\b";
      return;
    case '\f':
      *out += "\\f";
      return;
    default:
      *out += "\\u00";
      *out += kHex[static_cast<unsigned char>(c) >> 4];
      *out += kHex[c & 15];
  }
}

}  // namespace

Utf8Unit NextUtf8(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const Lead lead = LeadOf(byte(0));
  if (lead.bytes == 0) {
    return {Utf8Unit::Kind::kMalformed, 1};
  }
  for (size_t i = 1; i < lead.bytes; ++i) {
    if (i == text.size()) {
      return {Utf8Unit::Kind::kIncomplete, i};
    }
    const unsigned char from = i == 1 ? lead.second_from : 0x80;
    const unsigned char to = i == 1 ? lead.second_to : 0xbf;
    if (byte(i) < from || byte(i) > to) {
      return {Utf8Unit::Kind::kMalformed, i};
    }
  }
  return {Utf8Unit::Kind::kCharacter, lead.bytes};
}

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Unit unit = NextUtf8(text);
    if (unit.kind != Utf8Unit::Kind::kCharacter) {
      return false;
    }
    text.remove_prefix(unit.bytes);
  }
  return true;
}

std::string MendUtf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Unit unit = NextUtf8(text);
    out += unit.kind == Utf8Unit::Kind::kCharacter ? text.substr(0, unit.bytes) : kReplacementCharacter;
    text.remove_prefix(unit.bytes);
  }
  return out;
}

size_t CountCodePoints(std::string_view text) {
  size_t count = 0;
  for (const char c : text) {
    count += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }
  return count;
}

void AppendJsonString(std::string_view text, std::string* out) {
  *out += '"';
  while (!text.empty()) {
    // Runs of plain ASCII are nearly all there is.
    size_t plain = 0;
    while (plain < text.size()) {
      const auto c = static_cast<unsigned char>(text[plain]);
      if (c < 0x20 || c >= 0x80 || c == '"' || c == '\\') {
        break;
      }
      ++plain;
    }
    out->append(text.substr(0, plain));
    text.remove_prefix(plain);
    if (text.empty()) {
      break;
    }
    if (static_cast<unsigned char>(text[0]) < 0x80) {
      AppendEscaped(text[0], out);
      text.remove_prefix(1);
      continue;
    }
    const Utf8Unit unit = NextUtf8(text);
    out->append(unit.kind == Utf8Unit::Kind::kCharacter ? text.substr(0, unit.bytes) : kReplacementCharacter);
    text.remove_prefix(unit.bytes);
  }
  *out += '"';
}

}  // namespace espalier
