// Tokens of a prompt as text again: what was given, not what a tokenizer added to it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "server/completion_request.h"
#include "text/tokenizer.h"

namespace espalier {

// The piece of each token, without the spaces that SentencePiece puts before a text and after special tokens: joined
// they are a text that is tokenised to the same tokens again. Special tokens by their names, or as nothing.
std::vector<std::string> PiecesAsGiven(const Tokenizer& tokenizer, std::span<const int32_t> tokens,
                                       bool render_special);

// A prompt and where its tokens stand in it.
struct EchoedPrompt {
  std::string text;              // valid UTF-8; of a prompt that was given as text that very text
  std::vector<int64_t> offsets;  // of each token: code points of `text` before it; where pieces do not make up the
                                 // text, for it was normalised, none is beyond its end
  int64_t characters = 0;        // code points of all of it
};

// `tokens`: what `prompt` was tokenised to. Special tokens of a prompt that was given as tokens have no text.
EchoedPrompt EchoOf(const Tokenizer& tokenizer, const Prompt& prompt, std::span<const int32_t> tokens);

}  // namespace espalier
