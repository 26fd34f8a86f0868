#include "eval/task_requests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <string>

namespace espalier {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Bytes are tokens, except for a few pieces that are taken greedily where they match. "<s>" is BOS (256) and "</s>" EOS
// (257) where the model has them.
class FakeTokenizer final : public Tokenizer {
 public:
  explicit FakeTokenizer(bool has_bos = true, bool has_eos = true) : has_bos_(has_bos), has_eos_(has_eos) {}

  Result<std::vector<int32_t>> Encode(std::string_view text, bool add_special, bool parse_special) const override {
    std::vector<int32_t> tokens;
    if (add_special && has_bos_) {
      tokens.push_back(bos());
    }
    while (!text.empty()) {
      int32_t token = static_cast<unsigned char>(text[0]);
      size_t length = 1;
      for (size_t i = parse_special ? 0 : 2; i < kPieces.size(); ++i) {
        const bool exists = (i != 0 || has_bos_) && (i != 1 || has_eos_);
        if (exists && text.starts_with(kPieces[i]) && kPieces[i].size() > length) {
          token = 256 + static_cast<int32_t>(i);
          length = kPieces[i].size();
        }
      }
      tokens.push_back(token);
      text.remove_prefix(length);
    }
    return tokens;
  }
  std::string Piece(int32_t, bool) const override { return {}; }
  std::string Decode(std::span<const int32_t>) const override { return {}; }
  int32_t n_vocab() const override { return 261; }
  int32_t bos() const override { return has_bos_ ? 256 : -1; }
  int32_t eos() const override { return has_eos_ ? 257 : -1; }
  bool adds_bos() const override { return has_bos_; }
  bool is_end_of_generation(int32_t) const override { return false; }
  std::span<const int32_t> end_of_generation_tokens() const override { return {}; }
  const void* native_vocab() const override { return nullptr; }

  static constexpr int32_t kYes = 258, kNo = 259, kAb = 260;

 private:
  static constexpr std::array<std::string_view, 5> kPieces = {"<s>", "</s>", " yes", " no", "ab"};
  bool has_bos_;
  bool has_eos_;
};

constexpr int32_t kBos = 256;
constexpr int32_t kEos = 257;

EncodedRequest Encode(const TaskRequest& request, const FakeTokenizer& tokenizer = FakeTokenizer(),
                      int64_t max_inputs = 100) {
  auto encoded = EncodeRequest(tokenizer, request, max_inputs);
  EXPECT_TRUE(encoded.ok()) << encoded.status().message();
  return encoded.ok() ? *encoded : EncodedRequest();
}

TEST(EncodeRequest, EncodesContextAndContinuationAsOneText) {
  const EncodedRequest request = Encode({"Q:", " yes"});
  EXPECT_THAT(request.tokens, ElementsAre(kBos, 'Q', ':', FakeTokenizer::kYes));
  EXPECT_EQ(request.n_context, 3);
  EXPECT_FALSE(request.truncated);
}

TEST(EncodeRequest, MovesSpaceAtTheContextsEndToTheContinuation) {
  const EncodedRequest request = Encode({"Q: ", "yes"});
  EXPECT_THAT(request.tokens, ElementsAre(kBos, 'Q', ':', FakeTokenizer::kYes));
  EXPECT_EQ(request.n_context, 3);
  const EncodedRequest lines = Encode({"Q:\n\n", " no"});
  EXPECT_THAT(lines.tokens, ElementsAre(kBos, 'Q', ':', '\n', '\n', FakeTokenizer::kNo));
  EXPECT_EQ(lines.n_context, 3);
}

// "a" + "bc" is the tokens "ab", "c": the context keeps its own token, the continuation is what the whole text has
// beyond one token.
TEST(EncodeRequest, SplitsByTheNumberOfContextTokens) {
  const EncodedRequest request = Encode({"a", "bc"});
  EXPECT_THAT(request.tokens, ElementsAre(kBos, 'a', 'c'));
  EXPECT_EQ(request.n_context, 2);
}

TEST(EncodeRequest, PutsBosInThePlaceOfAMissingContext) {
  const EncodedRequest request = Encode({"", " yes"});
  EXPECT_THAT(request.tokens, ElementsAre(kBos, FakeTokenizer::kYes));
  EXPECT_EQ(request.n_context, 1);
}

TEST(EncodeRequest, PutsEosThereWhereThereIsNoBos) {
  EXPECT_THAT(Encode({"", " yes"}, FakeTokenizer(false, true)).tokens, ElementsAre(kEos, FakeTokenizer::kYes));
  EXPECT_THAT(Encode({"Q", " yes"}, FakeTokenizer(false, true)).tokens, ElementsAre('Q', FakeTokenizer::kYes));
  const EncodedRequest blank = Encode({" ", "yes"}, FakeTokenizer(false, true));
  EXPECT_THAT(blank.tokens, ElementsAre(kEos, FakeTokenizer::kYes));
  EXPECT_EQ(blank.n_context, 1);
  const auto neither = EncodeRequest(FakeTokenizer(false, false), {"", " yes"}, 100);
  ASSERT_FALSE(neither.ok());
  EXPECT_EQ(neither.status().code(), ErrorCode::kUnsupported);
}

TEST(EncodeRequest, HasOneBosWhereTheTextBeginsWithIt) {
  EXPECT_THAT(Encode({"<s>Q", " yes"}).tokens, ElementsAre(kBos, 'Q', FakeTokenizer::kYes));
  const EncodedRequest request = Encode({"", "<s>ab"});
  EXPECT_THAT(request.tokens, ElementsAre(kBos, FakeTokenizer::kAb));
  EXPECT_EQ(request.n_context, 1);
}

TEST(EncodeRequest, LeavesOutTheBeginningOfWhatIsTooLong) {
  const TaskRequest request = {"QRST", " yesUV"};  // BOS and 4 of context, 3 of continuation
  const EncodedRequest whole = Encode(request, FakeTokenizer(), 7);
  EXPECT_EQ(whole.tokens.size(), 8u);
  EXPECT_FALSE(whole.truncated);
  const EncodedRequest cut = Encode(request, FakeTokenizer(), 5);  // 5 inputs and the last token, which is only scored
  EXPECT_THAT(cut.tokens, ElementsAre('R', 'S', 'T', FakeTokenizer::kYes, 'U', 'V'));
  EXPECT_EQ(cut.n_context, 3);
  EXPECT_TRUE(cut.truncated);
  const EncodedRequest least = Encode(request, FakeTokenizer(), 3);
  EXPECT_THAT(least.tokens, ElementsAre('T', FakeTokenizer::kYes, 'U', 'V'));
  EXPECT_EQ(least.n_context, 1);
  const auto too_long = EncodeRequest(FakeTokenizer(), request, 2);
  ASSERT_FALSE(too_long.ok());
  EXPECT_THAT(too_long.status().message(), HasSubstr("3 tokens"));
}

TEST(EncodeRequest, RefusesAContinuationWithoutTokens) {
  for (const TaskRequest& request : {TaskRequest{"a", "b"}, TaskRequest{"Q", ""}, TaskRequest{"", ""}}) {
    const auto encoded = EncodeRequest(FakeTokenizer(), request, 100);
    ASSERT_FALSE(encoded.ok()) << request.context;
    EXPECT_THAT(encoded.status().message(), HasSubstr("adds no token"));
  }
}

TEST(EncodeItems, NamesWhatCannotBeEncoded) {
  std::vector<TaskItem> items(3, ChooseContinuation("a", std::array<std::string, 2>{"c", "b"}, ""));
  for (TaskItem& item : items) {
    item.set = "file";
  }
  items[0].task = "other";
  items[0].requests.pop_back();
  items[1].requests.pop_back();
  const auto encoded = EncodeItems(FakeTokenizer(), items, 100);
  ASSERT_FALSE(encoded.ok());
  EXPECT_THAT(encoded.status().message(), HasSubstr("file: task '', item 2, choice 2: continuation 'b'"));
}

}  // namespace
}  // namespace espalier
