#include "server/prompt_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "server/text_stream.h"

namespace espalier {
namespace {

std::string Joined(const std::vector<std::string>& pieces) { return fmt::format("{}", fmt::join(pieces, "")); }

// What the tokenizer put around a text of its own accord is no part of it.
void DropAddedTokens(const Tokenizer& tokenizer, std::span<const int32_t> tokens, const std::string& text,
                     std::vector<std::string>& pieces) {
  if (!tokens.empty() && tokenizer.adds_bos() && tokens.front() == tokenizer.bos()) {
    pieces.front().clear();
  }
  if (!tokens.empty() && tokens.back() == tokenizer.eos() && Joined(pieces) != text) {
    pieces.back().clear();
  }
}

}  // namespace

std::vector<std::string> PiecesAsGiven(const Tokenizer& tokenizer, std::span<const int32_t> tokens,
                                       bool render_special) {
  const auto probe = tokenizer.Encode("a", /*add_special=*/false, /*parse_special=*/false);
  const bool adds_space = probe.ok() && !probe->empty() && tokenizer.Piece(probe->front(), false).substr(0, 1) == " ";
  std::vector<std::string> pieces;
  bool at_begin = true;
  for (const int32_t token : tokens) {
    const std::string plain = tokenizer.Piece(token, /*render_special=*/false);
    std::string piece = render_special ? tokenizer.Piece(token, /*render_special=*/true) : plain;
    if (adds_space && at_begin && piece.substr(0, 1) == " ") {
      piece.erase(0, 1);
    }
    pieces.push_back(std::move(piece));
    at_begin = plain.empty();
  }
  return pieces;
}

EchoedPrompt EchoOf(const Tokenizer& tokenizer, const Prompt& prompt, std::span<const int32_t> tokens) {
  const auto* given = prompt.size() == 1 ? std::get_if<std::string>(&prompt.front()) : nullptr;
  std::vector<std::string> pieces = PiecesAsGiven(tokenizer, tokens, /*render_special=*/given != nullptr);
  if (given != nullptr) {
    DropAddedTokens(tokenizer, tokens, *given, pieces);
  }
  EchoedPrompt echo;
  TextStream joined;
  for (const std::string& piece : pieces) {
    echo.offsets.push_back(joined.characters());
    echo.text += joined.Push(piece);
  }
  echo.text += joined.Flush();
  echo.characters = joined.characters();
  if (given != nullptr && echo.text != *given) {
    TextStream whole;
    echo.text = whole.Push(*given);
    echo.text += whole.Flush();
    echo.characters = whole.characters();
    for (int64_t& offset : echo.offsets) {
      offset = std::min(offset, echo.characters);
    }
  }
  return echo;
}

}  // namespace espalier
