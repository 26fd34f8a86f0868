// The rules of a GBNF text as libllama makes them: groups and repetitions are rules of their own. Not for use outside
// this layer.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace espalier {

enum class GbnfKind : uint8_t {
  kOr,            // between two alternatives
  kRule,          // a reference; the value is below rules.size()
  kCharacter,     // a code point, or the first member of a class
  kNotCharacter,  // the first member of a class that begins with "^"
  kMember,        // a further member of the class before it
  kUpTo,          // makes a range, inclusive, of the member before it
  kAnyCharacter,
  kToken,  // by its id
  kNotToken,
};

struct GbnfElement {
  GbnfKind kind;
  uint32_t value = 0;
};

struct GbnfRules {
  std::vector<std::vector<GbnfElement>> rules;  // by number
  std::vector<std::string> names;               // of each; what groups and repetitions become is named after its rule
  uint32_t root = 0;
};

// The id of "<text>", with its brackets; nothing where it is not one token.
using GbnfTokenOf = std::function<std::optional<uint32_t>(std::string_view)>;

// Reads all that libllama reads, and refuses what it refuses, naming the byte: libllama prints such a text to stderr.
// Fails with kInvalidArgument also where groups are nested deeper than libllama's recursion should follow, where
// repetitions, which are written out, make too many rules or too long ones, on a rule that is used and not defined, and
// where there is none named root.
Result<GbnfRules> ParseGbnf(std::string_view text, const GbnfTokenOf& token_of);

}  // namespace espalier
