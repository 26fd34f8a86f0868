#include "eval/windows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace espalier {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// One token per byte, its value; BOS is 1000.
class ByteTokenizer final : public Tokenizer {
 public:
  explicit ByteTokenizer(bool adds_bos = true) : adds_bos_(adds_bos) {}
  Result<std::vector<int32_t>> Encode(std::string_view text, bool add_special, bool parse_special) const override {
    EXPECT_FALSE(parse_special) << "a test text is text, whatever it contains";
    std::vector<int32_t> tokens;
    if (add_special && adds_bos_) {
      tokens.push_back(bos());
    }
    tokens.insert(tokens.end(), text.begin(), text.end());
    return tokens;
  }
  std::string Piece(int32_t, bool) const override { return ""; }
  std::string Decode(std::span<const int32_t>) const override { return ""; }
  int32_t n_vocab() const override { return 1001; }
  int32_t bos() const override { return 1000; }
  int32_t eos() const override { return -1; }
  bool adds_bos() const override { return adds_bos_; }
  bool is_end_of_generation(int32_t) const override { return false; }
  std::span<const int32_t> end_of_generation_tokens() const override { return {}; }
  const void* native_vocab() const override { return nullptr; }

 private:
  bool adds_bos_;
};

std::vector<int32_t> At(const Windows& windows, int64_t i) {
  const auto window = windows.at(i);
  return {window.begin(), window.end()};
}

TEST(CutWindows, GptqCutsTheTextOnceAndScoresAllButTheFirstToken) {
  const auto windows = CutWindows(ByteTokenizer(), 512, "abc", "abcdefghijk", {Protocol::kGptq, 4, 0});
  ASSERT_TRUE(windows.ok()) << windows.status().message();
  EXPECT_EQ(windows->count(), 3);
  EXPECT_EQ(windows->text_tokens, 12);
  EXPECT_THAT(At(*windows, 0), ElementsAre(1000, 'a', 'b', 'c'));
  EXPECT_THAT(At(*windows, 1), ElementsAre('d', 'e', 'f', 'g'));
  EXPECT_THAT(At(*windows, 2), ElementsAre('h', 'i', 'j', 'k'));
  EXPECT_EQ(windows->first_target, 1);
  EXPECT_EQ(windows->targets_per_window(), 3);
  EXPECT_EQ(windows->corpus, "abc");
}

TEST(CutWindows, LlamaPutsBosFirstAndScoresTheSecondHalf) {
  const auto windows = CutWindows(ByteTokenizer(), 512, "abc", "abcdefghijklm\n", {Protocol::kLlama, 6, 0});
  ASSERT_TRUE(windows.ok()) << windows.status().message();
  EXPECT_EQ(windows->text_tokens, 14);  // without the newline
  EXPECT_EQ(windows->count(), 2);
  EXPECT_THAT(At(*windows, 0), ElementsAre(1000, 'a', 'b', 'c', 'd', 'e'));
  EXPECT_THAT(At(*windows, 1), ElementsAre(1000, 'g', 'h', 'i', 'j', 'k'));
  EXPECT_EQ(windows->first_target, 4);          // rows 3 and 4 predict tokens 4 and 5
  EXPECT_EQ(windows->targets_per_window(), 2);  // n - 1 - n/2, as in llama-perplexity
}

TEST(CutWindows, LeavesTheFirstTokenWhereTheVocabularyHasNoBos) {
  const auto windows = CutWindows(ByteTokenizer(false), 512, "abc", "abcdefgh", {Protocol::kLlama, 4, 0});
  ASSERT_TRUE(windows.ok()) << windows.status().message();
  EXPECT_THAT(At(*windows, 1), ElementsAre('e', 'f', 'g', 'h'));
}

TEST(CutWindows, SpreadsTheWindowsAskedForOverTheText) {
  const std::string text = "abcdefghijklmnopqrstuvw";  // 24 tokens with BOS: 6 windows of 4
  const auto windows =
      CutWindows(ByteTokenizer(), 512, "abc", text, {Protocol::kGptq, 4, /*max_windows=*/4, /*spread=*/true});
  ASSERT_TRUE(windows.ok()) << windows.status().message();
  ASSERT_EQ(windows->count(), 4);
  EXPECT_THAT(At(*windows, 0), ElementsAre(1000, 'a', 'b', 'c'));
  EXPECT_THAT(At(*windows, 1), ElementsAre('d', 'e', 'f', 'g'));
  EXPECT_THAT(At(*windows, 2), ElementsAre('l', 'm', 'n', 'o'));
  EXPECT_THAT(At(*windows, 3), ElementsAre('p', 'q', 'r', 's'));
  const auto all = CutWindows(ByteTokenizer(), 512, "abc", text, {Protocol::kGptq, 4, 9, true});
  const auto first = CutWindows(ByteTokenizer(), 512, "abc", text, {Protocol::kGptq, 4, 9, false});
  ASSERT_TRUE(all.ok() && first.ok());
  EXPECT_EQ(all->tokens, first->tokens);
}

TEST(CutWindows, TakesNoMoreWindowsThanAskedFor) {
  const auto windows = CutWindows(ByteTokenizer(), 512, "abc", std::string(100, 'x'), {Protocol::kGptq, 10, 3});
  ASSERT_TRUE(windows.ok());
  EXPECT_EQ(windows->count(), 3);
  EXPECT_EQ(windows->text_tokens, 101);
}

TEST(CutWindows, TextShorterThanAWindowNamesBothNumbers) {
  const auto gptq = CutWindows(ByteTokenizer(), 512, "short.txt", "seven..", {Protocol::kGptq, 9, 0});
  ASSERT_FALSE(gptq.ok());
  EXPECT_EQ(gptq.status().code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(gptq.status().message(), HasSubstr("short.txt"));
  EXPECT_THAT(gptq.status().message(), HasSubstr("has 8 tokens"));
  EXPECT_THAT(gptq.status().message(), HasSubstr("at least 9"));
  const auto llama = CutWindows(ByteTokenizer(), 512, "short.txt", "seven..", {Protocol::kLlama, 5, 0});
  ASSERT_FALSE(llama.ok());
  EXPECT_THAT(llama.status().message(), HasSubstr("at least 10"));
}

TEST(WindowLength, DefaultsFollowProtocolAndModel) {
  EXPECT_EQ(*WindowLength({Protocol::kGptq, 0, 0}, 4096), 2048);
  EXPECT_EQ(*WindowLength({Protocol::kGptq, 0, 0}, 512), 512);
  EXPECT_EQ(*WindowLength({Protocol::kLlama, 0, 0}, 4096), 512);
  EXPECT_EQ(*WindowLength({Protocol::kLlama, 1024, 0}, 4096), 1024);
}

TEST(WindowLength, RefusesWhatTheModelCannotRead) {
  for (const int64_t length : {int64_t{-1}, int64_t{3}, int64_t{513}}) {
    const auto result = WindowLength({Protocol::kGptq, length, 0}, 512);
    ASSERT_FALSE(result.ok());
    EXPECT_THAT(result.status().message(), HasSubstr(std::to_string(length)));
    EXPECT_THAT(result.status().message(), HasSubstr("512"));
  }
}

TEST(Protocol, NamesGoBothWays) {
  for (const Protocol protocol : {Protocol::kGptq, Protocol::kLlama}) {
    EXPECT_EQ(*ParseProtocol(ProtocolName(protocol)), protocol);
  }
  EXPECT_FALSE(ParseProtocol("lama").ok());
}

}  // namespace
}  // namespace espalier
