// UTF-8 that arrives in pieces: tokens end where they like, also inside a character.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace espalier {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

struct Utf8Unit {
  enum class Kind {
    kCharacter,   // one well-formed character
    kMalformed,   // bytes that one U+FFFD stands for (the Unicode standard's "maximal subpart", as browsers replace
                  // them)
    kIncomplete,  // the whole rest of the text, and more bytes could make it a character
  };
  Kind kind = Kind::kCharacter;
  size_t bytes = 0;  // 1 to 4
};

// What stands at the beginning of `text`. REQUIRES: not empty.
Utf8Unit NextUtf8(std::string_view text);

bool IsUtf8(std::string_view text);
// With U+FFFD for what is not UTF-8; the same as nlohmann's error_handler_t::replace.
std::string MendUtf8(std::string_view text);
// Of well-formed UTF-8: code points.
size_t CountCodePoints(std::string_view text);

// `text` as a JSON string with its quotes, byte for byte as nlohmann writes it with error_handler_t::replace. By hand
// because it runs for every token of every stream.
void AppendJsonString(std::string_view text, std::string* out);

}  // namespace espalier
