// GBNF, llama.cpp's language for grammars, judged before libllama reads it. libllama follows nesting with its stack,
// prints a text that it cannot read to stderr, and takes grammars whose rules it can follow for ever or in 2^n ways.
#pragma once

#include <string_view>

#include "base/status.h"
#include "text/gbnf_rules.h"

namespace espalier {

// Whether libllama takes the grammar without printing, within a few MiB, and without taking more than a moment for one
// character. Fails with kInvalidArgument: what ParseGbnf refuses; left recursion; a rule that no text fits; rules that
// can be followed in too many ways before the first character. Says nothing about how many ways there are after many
// characters: a grammar that is ambiguous enough still gets slow as its text gets long.
Status CheckGbnf(std::string_view text, const GbnfIsToken& is_token);

}  // namespace espalier
