// The rules of a GBNF text as libllama makes them, without what they match: enough to tell whether libllama will take
// them, and at what cost. Not for use outside this layer.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace espalier {

// What stands in a rule beside references to rules, which are their numbers.
enum GbnfElement : int32_t {
  kGbnfText = -1,  // takes a character or a token
  kGbnfMore = -2,  // a further member of the character class before it
  kGbnfOr = -3,    // between two alternatives
};

struct GbnfRules {
  std::vector<std::vector<int32_t>> rules;  // by number; references in them are below rules.size()
  std::vector<std::string> names;           // of each; what groups and repetitions become is named after its rule
};

// Whether "<text>", with its brackets, is one token.
using GbnfIsToken = std::function<bool(std::string_view)>;

// Reads all that libllama reads, and refuses what it refuses, naming the byte: libllama prints such a text to stderr.
// Fails with kInvalidArgument also where groups are nested deeper than libllama's recursion should follow, where
// repetitions, which are written out, make too many rules or too long ones, on a rule that is used and not defined, and
// where there is none named root.
Result<GbnfRules> ParseGbnf(std::string_view text, const GbnfIsToken& is_token);

}  // namespace espalier
