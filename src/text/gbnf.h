// GBNF, llama.cpp's language for grammars. What libllama refuses is refused here too, so that a grammar means the same
// to both; gbnf_matcher.h follows what is taken.
#pragma once

#include <functional>
#include <string_view>

#include "base/status.h"
#include "text/gbnf_rules.h"

namespace espalier {

// Fails with kInvalidArgument: what ParseGbnf refuses; left recursion; a rule that no text fits; rules that can be
// followed in too many ways before the first character. Says nothing about how many ways there are to read a text.
Result<GbnfRules> ReadGbnf(std::string_view text, const GbnfTokenOf& token_of);

// Whether "<text>", with its brackets, is one token.
using GbnfIsToken = std::function<bool(std::string_view)>;

// Of ReadGbnf only what it says.
Status CheckGbnf(std::string_view text, const GbnfIsToken& is_token);

}  // namespace espalier
