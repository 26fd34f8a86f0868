// The small parts that GBNF is written in. Not for use outside this layer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace espalier {

bool IsGbnfDigit(char c);
bool IsGbnfWord(char c);  // of names
bool IsGbnfHex(char c);

// A text and a place in it. What takes or skips something leaves `at` behind it.
struct GbnfScanner {
  explicit GbnfScanner(std::string_view grammar) : text(grammar) {}

  bool at_end() const { return at >= text.size(); }
  // '\0' beyond the end.
  char Now(size_t ahead = 0) const { return at + ahead < text.size() ? text[at + ahead] : '\0'; }
  // What stands here is not what was expected.
  Status Wrong(std::string_view expected) const;

  // Fails, naming the place, on a zero byte anywhere, which would end the text for libllama. REQUIRES: at the beginning
  Status CheckNoZero();
  void SkipSpace(bool newlines);  // and comments
  std::string TakeName();         // empty: there is none
  // One character of a string or class, or an escape; `end`: what was expected where the text ends.
  Result<uint32_t> TakeCharacter(std::string_view end);
  // `most` where it is larger; nothing where there is none.
  std::optional<uint64_t> TakeNumber(uint64_t most);

  std::string_view text;
  size_t at = 0;

 private:
  Result<uint32_t> TakeUtf8();
  Result<uint32_t> TakeHex(size_t digits);
};

}  // namespace espalier
