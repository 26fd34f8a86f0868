#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>

#include "base/file.h"
#include "support/gguf_bytes.h"
#include "support/paths.h"
#include "support/twin_tokenizer.h"

namespace espalier {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

const std::string kTwin = test::ModelPath("espalier-twin-f16.gguf");

std::shared_ptr<const Model> OpenTwin() {
  auto model = Model::Open(kTwin);
  EXPECT_TRUE(model.ok()) << model.status().message();
  return model.ok() ? *model : nullptr;
}

using TokenizerTest = test::TwinTokenizerTest;

// The ids come from stock `llama-tokenize -m espalier-twin-f16.gguf --ids -p TEXT` (with --no-bos in the second).
TEST_F(TokenizerTest, GivesTheTokensOfStockLlamaTokenize) {
  EXPECT_THAT(*tokenizer_->Encode("It was a bright cold day in April, \"naïve\" — 42.", true, true),
              ElementsAre(1, 532, 319, 261, 1974, 1628, 634, 289, 354, 4165, 8092, 8100, 331, 2046, 8166, 312, 8107,
                          5634, 8081, 8156, 8148, 8103));
  EXPECT_THAT(*tokenizer_->Encode("  two  spaces\nand a line", false, true),
              ElementsAre(5531, 700, 8081, 515, 1318, 13, 410, 261, 2087));
}

TEST_F(TokenizerTest, ReadsSpecialTokensOnlyWhenAsked) {
  EXPECT_THAT(*tokenizer_->Encode("</s> x", true, true), ElementsAre(1, 2, 5531, 8115));
  EXPECT_THAT(*tokenizer_->Encode("</s> x", true, false), ElementsAre(1, 8081, 8191, 50, 8089, 8177, 6298));
}

TEST_F(TokenizerTest, GivesTextBackUnchanged) {
  for (const std::string text : {"", " ", "a", "Two words", " leading space", "trailing space ", "tab\tand\nnewline",
                                 "naïve — 日本語 🙂", "zero\x01\x7f bytes"}) {
    EXPECT_EQ(tokenizer_->Decode(*tokenizer_->Encode(text, false, false)), text);
  }
}

TEST_F(TokenizerTest, GivesInvalidUtf8BackAsBytes) {
  std::string text;
  for (int byte = 1; byte < 256; ++byte) {
    text.push_back(static_cast<char>(byte));
  }
  EXPECT_EQ(tokenizer_->Decode(*tokenizer_->Encode(text, false, false)), text);
}

TEST_F(TokenizerTest, PiecesJoinToTheText) {
  const std::string text = "It was a dark night — 🙂";
  std::string joined;
  const auto tokens = tokenizer_->Encode(text, true, false);
  ASSERT_TRUE(tokens.ok()) << tokens.status().message();
  for (const int32_t token : *tokens) {
    joined += tokenizer_->Piece(token, false);
  }
  EXPECT_EQ(joined, " " + text);  // SentencePiece's own leading space; the invisible BOS adds nothing
  EXPECT_EQ(tokenizer_->Piece(tokenizer_->bos(), true), "<s>");
}

TEST_F(TokenizerTest, KnowsTheSpecialTokens) {
  EXPECT_EQ(tokenizer_->n_vocab(), 8192);
  EXPECT_EQ(tokenizer_->bos(), 1);
  EXPECT_EQ(tokenizer_->eos(), 2);
  EXPECT_TRUE(tokenizer_->adds_bos());
  EXPECT_TRUE(tokenizer_->is_end_of_generation(2));
  std::vector<int32_t> ends;
  for (int32_t token = 0; token < tokenizer_->n_vocab(); ++token) {
    if (tokenizer_->is_end_of_generation(token)) {
      ends.push_back(token);
    }
  }
  EXPECT_THAT(tokenizer_->end_of_generation_tokens(), ElementsAreArray(ends));
  EXPECT_FALSE(tokenizer_->is_end_of_generation(1974));
}

TEST_F(TokenizerTest, IgnoresIdsOutsideTheVocabulary) {
  EXPECT_EQ(tokenizer_->Piece(-1, true), "");
  EXPECT_EQ(tokenizer_->Piece(8192, true), "");
  EXPECT_FALSE(tokenizer_->is_end_of_generation(1 << 30));
  EXPECT_EQ(tokenizer_->Decode(std::vector<int32_t>{-5, 1974, 1 << 30}),
            tokenizer_->Decode(std::vector<int32_t>{1974}));
}

// libllama would throw in the middle of the first text that needs the byte.
TEST(Tokenizer, RefusesAVocabularyThatCannotSpellEveryByte) {
  const std::string path = std::filesystem::temp_directory_path() / ("espalier-tiny-" + std::to_string(getpid()));
  ASSERT_TRUE(WriteWholeFile(path, test::TinyLlama().Build()).ok());
  const auto model = Model::Open(path);
  ASSERT_TRUE(model.ok()) << model.status().message();
  const auto tokenizer = Tokenizer::Open(**model);
  std::filesystem::remove(path);
  ASSERT_FALSE(tokenizer.ok());
  EXPECT_EQ(tokenizer.status().code(), ErrorCode::kUnsupported);
  EXPECT_THAT(tokenizer.status().message(), HasSubstr("no token for byte 0x"));
}

Result<std::string> RenderWith(const std::string& chat_template, std::span<const ChatMessage> messages,
                               bool add_assistant) {
  test::GgufBytes file = test::TinyLlama();
  file.Set("tokenizer.chat_template", test::Str(chat_template));
  ESPALIER_ASSIGN_OR_RETURN(const auto gguf, GgufFile::Parse(test::Source(file.Build())));
  ESPALIER_ASSIGN_OR_RETURN(const auto model, Model::FromGguf(gguf));
  return ApplyChatTemplate(*model, messages, add_assistant);
}

TEST(ChatTemplate, RendersChatMl) {
  const std::vector<ChatMessage> messages = {{"system", "Be short."}, {"user", "Hello"}};
  const auto text = RenderWith("{% for m in messages %}<|im_start|>...<|im_end|>{% endfor %}", messages, true);
  ASSERT_TRUE(text.ok()) << text.status().message();
  EXPECT_EQ(*text,
            "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ChatTemplate, RendersManyShortMessagesWhole) {
  const std::vector<ChatMessage> messages(200, ChatMessage{"user", "x"});
  const auto text = RenderWith("<|im_start|>", messages, false);
  ASSERT_TRUE(text.ok()) << text.status().message();
  const std::string one = "<|im_start|>user\nx<|im_end|>\n";
  EXPECT_EQ(text->size(), 200 * one.size());
  EXPECT_EQ(text->substr(199 * one.size()), one);
}

TEST(ChatTemplate, NamesAnUnknownTemplate) {
  const auto text = RenderWith("{{ nobody_knows_me }}", {}, true);
  ASSERT_FALSE(text.ok());
  EXPECT_EQ(text.status().code(), ErrorCode::kUnsupported);
  EXPECT_THAT(text.status().message(), HasSubstr("nobody_knows_me"));
}

TEST(ChatTemplate, IsChatMlWhereTheModelHasNone) {
  const std::vector<ChatMessage> messages = {{"user", "Hello"}};
  EXPECT_FALSE(HasChatTemplate(*OpenTwin()));
  const auto text = ApplyChatTemplate(*OpenTwin(), messages, true);
  ASSERT_TRUE(text.ok()) << text.status().message();
  EXPECT_EQ(*text, "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ChatTemplate, RefusesZeroBytesWhichWouldEndTheMessage) {
  const std::vector<ChatMessage> messages = {{"user", "a"}, {"user", std::string("b\0c", 3)}};
  const auto text = RenderWith("<|im_start|>", messages, true);
  ASSERT_FALSE(text.ok());
  EXPECT_EQ(text.status().code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(text.status().message(), HasSubstr("message 1"));
}

}  // namespace
}  // namespace espalier
