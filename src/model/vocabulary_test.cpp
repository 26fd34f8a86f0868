#include "model/vocabulary.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "support/gguf_bytes.h"

namespace espalier {
namespace {

using namespace test;  // NOLINT: the vocabulary of these tests

Status Check(const GgufBytes& file) {
  const auto gguf = GgufFile::Parse(Source(file.Build()));
  EXPECT_TRUE(gguf.ok()) << gguf.status().message();
  return gguf.ok() ? CheckVocabulary(**gguf) : gguf.status();
}

// The same model with a byte-level BPE vocabulary.
GgufBytes TinyBpe() {
  GgufBytes file = TinyLlama();
  file.Set("tokenizer.ggml.model", Str("gpt2"));
  file.Set("tokenizer.ggml.pre", Str("llama-bpe"));
  file.Set("tokenizer.ggml.tokens", Strings({"a", "b", "ab", "Ġab"}));
  file.Set("tokenizer.ggml.token_type", Ints({1, 1, 1, 1}));
  file.Set("tokenizer.ggml.merges", Strings({"a b", "Ġ ab"}));
  file.Remove("tokenizer.ggml.scores");
  return file;
}

struct Refusal {
  std::string what;
  std::function<void(GgufBytes&)> spoil;
  std::string key;  // after "tokenizer.ggml."
  std::vector<std::string> parts;
};

void ExpectRefusals(const GgufBytes& good, const std::vector<Refusal>& refusals) {
  for (const Refusal& refusal : refusals) {
    SCOPED_TRACE(refusal.what);
    GgufBytes file = good;
    refusal.spoil(file);
    const Status status = Check(file);
    ASSERT_FALSE(status.ok());
    const std::string start = "<memory>: key 'tokenizer.ggml." + refusal.key + "': expected ";
    EXPECT_EQ(status.message().substr(0, start.size()), start);
    EXPECT_EQ(status.message().find('\n'), std::string::npos);
    for (const std::string& part : refusal.parts) {
      EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
    }
  }
}

std::function<void(GgufBytes&)> Set(const char* key, RawValue value) {
  return [=](GgufBytes& f) { f.Set(std::string("tokenizer.ggml.") + key, value); };
}
std::function<void(GgufBytes&)> Remove(const char* key) {
  return [=](GgufBytes& f) { f.Remove(std::string("tokenizer.ggml.") + key); };
}

TEST(Vocabulary, AcceptsWhatItNeeds) {
  EXPECT_TRUE(Check(TinyLlama()).ok());
  EXPECT_TRUE(Check(TinyBpe()).ok()) << Check(TinyBpe()).message();
  GgufBytes bare = TinyLlama();
  bare.Remove("tokenizer.ggml.scores");
  bare.Remove("tokenizer.ggml.token_type");
  bare.Remove("tokenizer.ggml.bos_token_id");  // libllama's default, 1, is in the vocabulary
  EXPECT_TRUE(Check(bare).ok());
}

TEST(Vocabulary, RefusesWhatLibllamaCannotLoad) {
  ExpectRefusals(TinyLlama(),
                 {
                     {"no kind", Remove("model"), "model", {"found none"}},
                     {"another kind", Set("model", Str("bert")), "model", {"'gpt2'", "found 'bert'"}},
                     {"no tokens", Remove("tokens"), "tokens", {"found none"}},
                     {"zero tokens", Set("tokens", Strings({})), "tokens", {"found none"}},
                     {"numbers as tokens", Set("tokens", Ints({1, 2, 3, 4})), "tokens", {"array of strings"}},
                     {"a string as tokens", Set("tokens", Str("abcd")), "tokens", {"single value"}},
                     {"scores of ints", Set("scores", Ints({1, 2, 3, 4})), "scores", {"float32"}},
                     {"three scores", Set("scores", Floats({1, 2, 3})), "scores", {"4 tokens", "found 3"}},
                     {"five scores", Set("scores", Floats({1, 2, 3, 4, 5})), "scores", {"4 tokens", "found 5"}},
                     {"NaN score",
                      Set("scores", Floats({0, 0, std::numeric_limits<float>::quiet_NaN(), 0})),
                      "scores",
                      {"NaN for token 2"}},
                     {"types of floats", Set("token_type", Floats({1, 1, 1, 1})), "token_type", {"int32"}},
                     {"three types", Set("token_type", Ints({1, 1, 1})), "token_type", {"found 3"}},
                     {"type 7", Set("token_type", Ints({1, 1, 7, 1})), "token_type", {"7 for token 2"}},
                     {"type -1", Set("token_type", Ints({-1, 1, 1, 1})), "token_type", {"-1 for token 0"}},
                     {"long token",
                      Set("tokens", Strings({"a", "b", "c", std::string(4097, 'x')})),
                      "tokens",
                      {"4097 bytes in token 3"}},
                 });
}

// libllama ends the process on these.
TEST(Vocabulary, RefusesWhatLibllamaAbortsOn) {
  const std::string nul_1("a\0b", 3);
  const std::string nul_2("a\0c", 3);
  ExpectRefusals(
      TinyLlama(),
      {
          {"equal tokens", Set("tokens", Strings({"a", "b", "c", "a"})), "tokens", {"'a' twice", "token 3"}},
          {"equal up to NUL", Set("tokens", Strings({nul_1, "b", "c", nul_2})), "tokens", {"twice", "token 3"}},
          {"name of an empty token", Set("tokens", Strings({"", "b", "c", "[EMPTY_0]"})), "tokens", {"token 3"}},
          {"bytes of no form", Set("token_type", Ints({1, 1, 1, 6})), "tokens", {"<0x1F>", "'a' as token 3"}},
          {"no begin token in a small vocabulary",
           [](GgufBytes& f) {
             f = TinyBpe();
             f.Remove("tokenizer.ggml.bos_token_id");
           },
           "bos_token_id",
           {"added to every text"}},
          {"no end token in a small vocabulary",
           [](GgufBytes& f) {
             f = TinyBpe();
             f.Set("tokenizer.ggml.add_eos_token", Bool(1));
             f.Remove("tokenizer.ggml.eos_token_id");
           },
           "eos_token_id",
           {"added to every text"}},
          {"pre-tokenizer that aborts on spaces",
           [](GgufBytes& f) {
             f = TinyBpe();
             f.Set("tokenizer.ggml.pre", Str("whitespace"));
           },
           "pre",
           {"'whitespace'"}},
      });
}

TEST(Vocabulary, RefusesBadMerges) {
  ExpectRefusals(TinyBpe(), {
                                {"none", Remove("merges"), "merges", {"found none"}},
                                {"numbers", Set("merges", Ints({1})), "merges", {"array of strings"}},
                                {"empty", Set("merges", Strings({"a b", ""})), "merges", {"merge 1"}},
                                {"one part", Set("merges", Strings({"ab"})), "merges", {"'ab' as merge 0"}},
                                {"no left part", Set("merges", Strings({" b"})), "merges", {"' b'"}},
                                {"no right part", Set("merges", Strings({"a "})), "merges", {"'a '"}},
                                {"three parts", Set("merges", Strings({"a b c"})), "merges", {"'a b c'"}},
                            });
}

TEST(Vocabulary, RefusesSpecialTokensOutsideIt) {
  for (const char* name : {"bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "mask", "fim_pre", "fim_suf",
                           "fim_mid", "fim_pad", "fim_rep", "fim_sep"}) {
    const std::string key = std::string(name) + "_token_id";
    ExpectRefusals(TinyLlama(), {
                                    {"one beyond", Set(key.c_str(), U32(4)), key, {"0 to 3", "found 4"}},
                                    {"-1 as uint32", Set(key.c_str(), U32(~0u)), key, {"found 4294967295"}},
                                    {"signed", Set(key.c_str(), I32(1)), key, {"uint32"}},
                                });
  }
}

// 4096 characters that stand for no byte would be written 4096 times 4096 bytes long, for each of these tokens.
TEST(Vocabulary, RefusesTokensThatExplodeWhenShown) {
  GgufBytes file = TinyBpe();
  std::vector<std::string> tokens;
  for (int i = 0; i < 32; ++i) {
    tokens.push_back(std::string(4000, ' ') + std::to_string(i));
  }
  file.Set("tokenizer.ggml.tokens", Strings(tokens));
  file.Remove("tokenizer.ggml.token_type");
  const Status status = Check(file);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.message().find("byte-level text"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace espalier
