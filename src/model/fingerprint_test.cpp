#include "model/fingerprint.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "support/gguf_bytes.h"
#include "support/paths.h"

namespace espalier {
namespace {

using namespace test;  // NOLINT: the vocabulary of these tests

Result<std::string> FingerprintOf(std::string content) {
  const auto gguf = GgufFile::Parse(Source(std::move(content)));
  if (!gguf.ok()) {
    return gguf.status();
  }
  const auto model = Model::FromGguf(*gguf);
  return model.ok() ? Fingerprint(**model) : Result<std::string>(model.status());
}

std::string FingerprintOf(const GgufBytes& file) {
  const auto fingerprint = FingerprintOf(file.Build());
  EXPECT_TRUE(fingerprint.ok()) << fingerprint.status().message();
  return fingerprint.ok() ? *fingerprint : "";
}

TEST(Fingerprint, IsThirtyTwoDigitsAndStays) {
  const std::string fingerprint = FingerprintOf(TinyLlama());
  EXPECT_EQ(fingerprint.size(), 32u);
  EXPECT_EQ(fingerprint.find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_EQ(fingerprint, FingerprintOf(TinyLlama()));
}

TEST(Fingerprint, DoesNotDependOnNamesAndLayout) {
  const std::string expected = FingerprintOf(TinyLlama());
  const auto same = [&](auto edit) {
    GgufBytes file = TinyLlama();
    edit(file);
    EXPECT_EQ(FingerprintOf(file), expected);
  };
  same([](GgufBytes& f) { f.Set("general.name", Str("another name")); });
  same([](GgufBytes& f) { f.Set("general.file_type", U32(1)); });
  same([](GgufBytes& f) { f.Set("tokenizer.chat_template", Str("{{ messages }}")); });
  same([](GgufBytes& f) { f.Set("quantize.imatrix.file", Str("x.dat")); });
  same([](GgufBytes& f) { std::reverse(f.entries.begin(), f.entries.end()); });
  same([](GgufBytes& f) { std::reverse(f.tensors.begin(), f.tensors.end()); });
  same([](GgufBytes& f) { f.version = 2; });
  same([](GgufBytes& f) { f.Set("llama.block_count", U64(1)); });
  same([](GgufBytes& f) {
    f.alignment = 64;
    f.Set("general.alignment", U32(64));
  });
}

TEST(Fingerprint, DependsOnEverythingThatBearsOnResults) {
  std::set<std::string> seen = {FingerprintOf(TinyLlama())};
  const auto different = [&](const char* what, auto edit) {
    GgufBytes file = TinyLlama();
    edit(file);
    EXPECT_TRUE(seen.insert(FingerprintOf(file)).second) << what;
  };
  different("context", [](GgufBytes& f) { f.Set("llama.context_length", U32(77)); });
  different("epsilon", [](GgufBytes& f) { f.Set("llama.attention.layer_norm_rms_epsilon", F32(1e-6f)); });
  different("token", [](GgufBytes& f) { f.Set("tokenizer.ggml.tokens", Strings({"<unk>", "<s>", "</s>", "b"})); });
  different("bounds of tokens", [](GgufBytes& f) {
    f.Set("tokenizer.ggml.tokens", Strings({"<unk><", "s>", "</s>", "a"}));
  });
  different("score", [](GgufBytes& f) { f.Set("tokenizer.ggml.scores", Floats({0, -1, -2, -4})); });
  different("type", [](GgufBytes& f) { f.Tensor("blk.0.attn_q.weight").type = GGML_TYPE_F16; });
  different("shape", [](GgufBytes& f) {
    f.Set("llama.feed_forward_length", U32(32));
    f.Tensor("blk.0.ffn_gate.weight").ne = {8, 32};
    f.Tensor("blk.0.ffn_up.weight").ne = {8, 32};
    f.Tensor("blk.0.ffn_down.weight").ne = {32, 8};
  });
  different("another tensor", [](GgufBytes& f) { f.Tensor("blk.0.attn_q.bias").ne = {8}; });
}

TEST(Fingerprint, DependsOnEveryByteOfSmallTensors) {
  const GgufBytes file = TinyLlama();
  const std::string content = file.Build();
  std::set<std::string> seen = {FingerprintOf(file)};
  size_t at = file.Metadata().size();
  for (const RawTensor& tensor : file.tensors) {
    for (const size_t byte : {size_t{0}, static_cast<size_t>(tensor.bytes()) - 1}) {
      std::string changed = content;
      changed[at + byte] ^= 1;
      const auto fingerprint = FingerprintOf(changed);
      ASSERT_TRUE(fingerprint.ok());
      EXPECT_TRUE(seen.insert(*fingerprint).second) << tensor.name << " byte " << byte;
    }
    at += file.Padded(tensor.bytes());
  }
}

TEST(Fingerprint, SamplesBothEndsAndTheMiddleOfLargeTensors) {
  GgufBytes file = TinyLlama();
  const int64_t n_vocab = 32768;  // 1 MiB of embeddings
  std::vector<std::string> tokens;
  for (int64_t i = 0; i < n_vocab; ++i) {
    tokens.push_back("t" + std::to_string(i));
  }
  file.Set("tokenizer.ggml.tokens", Strings(tokens));
  file.Set("tokenizer.ggml.scores", Floats(std::vector<float>(tokens.size())));
  file.Set("tokenizer.ggml.token_type", Ints(std::vector<int32_t>(tokens.size(), 1)));
  file.Tensor("token_embd.weight").ne = {8, n_vocab};
  file.Tensor("output.weight").ne = {8, n_vocab};
  const std::string content = file.Build();
  const size_t start = file.Metadata().size();
  ASSERT_EQ(file.tensors.front().name, "token_embd.weight");
  const size_t bytes = file.tensors.front().bytes();
  const std::string original = FingerprintOf(file);
  std::set<std::string> seen = {original};
  const auto changed = [&](size_t at) {
    std::string other = content;
    other[start + at] ^= 1;
    const auto fingerprint = FingerprintOf(other);
    EXPECT_TRUE(fingerprint.ok());
    return fingerprint.ok() ? *fingerprint : "";
  };
  for (const size_t at : {size_t{0}, size_t{4095}, bytes - 4096, bytes - 1}) {
    EXPECT_TRUE(seen.insert(changed(at)).second) << at;
  }
  // A change that is as long as a fifteenth of the tensor hits a sample, wherever it lies.
  for (size_t at = 0; at + bytes / 15 <= bytes; at += bytes / 40) {
    std::string other = content;
    std::fill_n(other.begin() + static_cast<std::ptrdiff_t>(start + at), bytes / 15, '\x3c');
    const auto fingerprint = FingerprintOf(other);
    ASSERT_TRUE(fingerprint.ok());
    EXPECT_NE(*fingerprint, original) << at;
  }
}

TEST(Fingerprint, TellsTheReferenceModelsApart) {
  std::set<std::string> seen;
  for (const char* name : {"espalier-reference-f16", "espalier-twin-f16"}) {
    const auto model = Model::Open(test::ModelPath(std::string(name) + ".gguf"));
    ASSERT_TRUE(model.ok());
    const auto fingerprint = Fingerprint(**model);
    ASSERT_TRUE(fingerprint.ok());
    EXPECT_TRUE(seen.insert(*fingerprint).second);
  }
}

}  // namespace
}  // namespace espalier
