#include "text/libllama_reference.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "support/paths.h"

namespace espalier {
namespace {

using ::testing::HasSubstr;

const std::string kTwin = test::ModelPath("espalier-twin-f16.gguf");
constexpr size_t kVocab = 8192;

std::unique_ptr<LibllamaReference> Open(LibllamaOptions options) {
  options.n_threads = 1;
  auto reference = LibllamaReference::Open(kTwin, options);
  EXPECT_TRUE(reference.ok()) << reference.status().message();
  return reference.ok() ? std::move(*reference) : nullptr;
}

std::vector<int32_t> Tokens(int count) {
  std::vector<int32_t> tokens(static_cast<size_t>(count), 1);
  for (size_t i = 1; i < tokens.size(); ++i) {
    tokens[i] = static_cast<int32_t>(300 + (i * 37) % 700);
  }
  return tokens;
}

std::vector<float> Copy(const Result<std::span<const float>>& rows) {
  EXPECT_TRUE(rows.ok()) << rows.status().message();
  return rows.ok() ? std::vector<float>(rows->begin(), rows->end()) : std::vector<float>();
}

TEST(LibllamaReference, ReturnsOneRowPerWantedToken) {
  auto reference = Open({.n_ctx = 256, .n_ubatch = 64});
  EXPECT_EQ(reference->n_vocab(), static_cast<int32_t>(kVocab));
  const auto tokens = Tokens(20);
  const auto all = Copy(reference->Decode(tokens, true));
  ASSERT_EQ(all.size(), 20 * kVocab);
  reference->ClearMemory();
  const auto last = Copy(reference->Decode(tokens, false));
  ASSERT_EQ(last.size(), kVocab);
  for (size_t i = 0; i < kVocab; ++i) {
    ASSERT_NEAR(last[i], all[19 * kVocab + i], 0.05);
  }
}

TEST(LibllamaReference, SplitsLongBatchesByUbatch) {
  auto reference = Open({.n_ctx = 256, .n_ubatch = 32});
  const auto tokens = Tokens(80);
  const auto whole = Copy(reference->Decode(tokens, true));
  ASSERT_EQ(whole.size(), 80 * kVocab);
  reference->ClearMemory();
  std::vector<float> parts;
  for (size_t begin = 0; begin < 80; begin += 32) {
    const auto part = Copy(reference->Decode(std::span(tokens).subspan(begin, std::min<size_t>(32, 80 - begin)), true));
    parts.insert(parts.end(), part.begin(), part.end());
  }
  EXPECT_EQ(parts, whole);
}

TEST(LibllamaReference, TruncatedSequenceContinuesAsIfNeverLonger) {
  auto reference = Open({.n_ctx = 256, .n_ubatch = 64});
  const auto tokens = Tokens(40);
  const auto prefix = std::span(tokens).first(30);
  Copy(reference->Decode(prefix, false));
  const auto expected = Copy(reference->Decode(std::span(tokens).subspan(30), true));
  reference->TruncateSequence(0, 30);
  EXPECT_EQ(Copy(reference->Decode(std::span(tokens).subspan(30), true)), expected);
}

TEST(LibllamaReference, KeepsSequencesOfABatchApart) {
  auto reference = Open({.n_ctx = 256, .n_ubatch = 64, .n_sequences = 2});
  const auto tokens = Tokens(16);
  const auto alone = Copy(reference->Decode(tokens, false));
  reference->ClearMemory();
  std::vector<LibllamaToken> batch;
  for (int i = 0; i < 16; ++i) {  // interleaved, the second sequence with other tokens
    const auto at = static_cast<size_t>(i);
    batch.push_back({tokens[at], 0, i == 15});
    batch.push_back({i == 0 ? 1 : tokens[at] + 1, 1, i == 15});
  }
  const auto both = Copy(reference->Decode(batch));
  ASSERT_EQ(both.size(), 2 * kVocab);
  double difference = 0;
  for (size_t i = 0; i < kVocab; ++i) {
    ASSERT_NEAR(both[i], alone[i], 0.05);
    difference += std::abs(both[kVocab + i] - alone[i]);
  }
  EXPECT_GT(difference, 100);
}

TEST(LibllamaReference, TakesQuantisedKv) {
  auto exact = Open({.n_ctx = 256, .n_ubatch = 64});
  auto quantised = Open({.n_ctx = 256, .n_ubatch = 64, .key_type = "q8_0", .value_type = "q8_0"});
  const auto tokens = Tokens(32);
  const auto a = Copy(exact->Decode(tokens, false));
  const auto b = Copy(quantised->Decode(tokens, false));
  EXPECT_NE(a, b);
  for (size_t i = 0; i < kVocab; ++i) {
    ASSERT_NEAR(a[i], b[i], 1.0);
  }
}

TEST(LibllamaReference, RefusesMoreTokensThanCells) {
  auto reference = Open({.n_ctx = 256, .n_ubatch = 64});
  const auto rows = reference->Decode(Tokens(257), false);
  ASSERT_FALSE(rows.ok());
  EXPECT_EQ(rows.status().code(), ErrorCode::kOutOfBudget);
  EXPECT_THAT(rows.status().message(), HasSubstr("256 KV cells"));
}

TEST(LibllamaReference, RefusesMoreRowsThanItWasOpenedFor) {
  auto reference = Open({.n_ctx = 256, .n_ubatch = 64, .all_logits = false});
  EXPECT_TRUE(reference->Decode(Tokens(8), false).ok());
  const auto rows = reference->Decode(Tokens(8), true);
  ASSERT_FALSE(rows.ok());
  EXPECT_THAT(rows.status().message(), HasSubstr("8 logits rows wanted"));
}

TEST(LibllamaReference, RefusesUnknownTokens) {
  auto reference = Open({.n_ctx = 256, .n_ubatch = 64});
  EXPECT_FALSE(reference->Decode(std::vector<int32_t>{1, 8192}, false).ok());
}

TEST(LibllamaReference, SaysWhatCannotBeOpened) {
  auto missing = LibllamaReference::Open("/nonexistent/model.gguf", {});
  ASSERT_FALSE(missing.ok());
  EXPECT_THAT(missing.status().message(), HasSubstr("/nonexistent/model.gguf"));
  auto type = LibllamaReference::Open(kTwin, {.key_type = "q9"});
  ASSERT_FALSE(type.ok());
  EXPECT_THAT(type.status().message(), HasSubstr("'q9'"));
  auto device = LibllamaReference::Open(kTwin, {.device = "Abacus0"});
  ASSERT_FALSE(device.ok());
  EXPECT_THAT(device.status().message(), HasSubstr("Abacus0"));
}

}  // namespace
}  // namespace espalier
