#include "server/prompt_text.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "server/utf8.h"
#include "support/twin_tokenizer.h"

namespace espalier {
namespace {

class PromptTextTest : public test::TwinTokenizerTest {
 protected:
  static std::vector<int32_t> Encode(const std::string& text) { return *tokenizer_->Encode(text, true, true); }
};

TEST_F(PromptTextTest, ATextIsEchoedAsItWasGiven) {
  for (const std::string text :
       {"The old house", " with a space", "  two", "", "na\u00efve \U0001F30D\n\ttabs ", "</s>x"}) {
    EXPECT_EQ(EchoOf(*tokenizer_, {text}, Encode(text)).text, text);
  }
}

TEST_F(PromptTextTest, OffsetsAreWhereThePiecesStand) {
  const std::string text = "The old house \u2014 stood";
  const std::vector<int32_t> tokens = Encode(text);
  const EchoedPrompt echo = EchoOf(*tokenizer_, {text}, tokens);
  ASSERT_EQ(echo.offsets.size(), tokens.size());
  EXPECT_EQ(echo.offsets[0], 0);
  EXPECT_EQ(echo.offsets[1], 0) << "nothing but the token that begins a text is before it";
  EXPECT_EQ(echo.offsets[2], 3) << "The, without the tokenizer's own space";
  EXPECT_EQ(echo.characters, static_cast<int64_t>(CountCodePoints(text)));
  for (size_t i = 1; i < tokens.size(); ++i) {
    const std::string piece = tokenizer_->Piece(tokens[i], true);
    const auto at = static_cast<size_t>(echo.offsets[i]);
    if (i > 1 && at < 14) {  // one byte a character so far
      EXPECT_EQ(text.substr(at, piece.size()), piece) << i;
    }
  }
}

TEST_F(PromptTextTest, TokensAreEchoedWithoutSpecialOnesAndWithoutTheAddedSpace) {
  const std::vector<int32_t> tokens = Encode("The old house");
  const EchoedPrompt echo = EchoOf(*tokenizer_, {tokens}, tokens);
  EXPECT_EQ(echo.text, "The old house");
  EXPECT_EQ(echo.offsets[2], 3);
}

TEST_F(PromptTextTest, HalfCharactersAreMended) {
  const std::vector<int32_t> tokens = {Encode("\u2603")[2]};  // a byte of it
  EXPECT_TRUE(IsUtf8(EchoOf(*tokenizer_, {tokens}, tokens).text));
}

TEST_F(PromptTextTest, PiecesAreTokenisedToTheSameTokens) {
  for (const std::string text : {"Hello, world", "<s>Hello</s> again", " x"}) {
    const std::vector<int32_t> tokens = Encode(text);
    std::string joined;
    for (const std::string& piece : PiecesAsGiven(*tokenizer_, tokens, true)) {
      joined += piece;
    }
    EXPECT_EQ(joined, "<s>" + text);
    EXPECT_EQ(*tokenizer_->Encode(joined, false, true), tokens);
  }
}

}  // namespace
}  // namespace espalier
