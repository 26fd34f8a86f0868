// Packed attention (AttentionGroup::packed) computes what attention row by row does. Not the same bits: tiles add in
// another order, and in f32 where row by row values are added in f16. So the reference here is libllama with a batch
// that is large enough for tiles: it sees the same tokens, and what follows them, which they cannot see.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "runtime/engine.h"
#include "support/engines.h"
#include "support/models.h"
#include "text/libllama_reference.h"

namespace espalier::test {
namespace {

constexpr size_t kDepth = 1200;  // more than HeadPacking::kLeastCells
constexpr int kVocabulary = 512;

// Four query heads share each key head.
std::string SharedHeads() {
  RandomModelOptions options;
  options.n_layer = 2;
  options.n_head = 8;
  options.n_head_kv = 2;
  options.n_vocab = kVocabulary;
  return RandomModel("shared-heads", options);
}

// The largest difference in units of the logits' own deviation.
double RelativeDifference(std::span<const float> expected, std::span<const float> found) {
  double squares = 0;
  for (const float logit : expected) {
    squares += static_cast<double>(logit) * static_cast<double>(logit);
  }
  return MaxDifference(expected, found) / std::sqrt(squares / static_cast<double>(expected.size()));
}

std::unique_ptr<Engine> EngineWith(int n_ubatch) {
  EngineOptions options = ExactOptions();
  options.n_ctx = 4096;
  options.n_ubatch = n_ubatch;
  options.head_rows = n_ubatch;
  const auto model = OpenOrFail(SharedHeads());
  return OpenEngine(model, options, Plan::Dense(model->n_layer()));
}

class PackedAttention : public testing::TestWithParam<size_t> {};

TEST_P(PackedAttention, IsWhatLibllamaComputesInTiles) {
  const size_t n = GetParam();
  const auto tokens = SomeTokens(kDepth + 64, kVocabulary);
  const std::span<const int32_t> all(tokens);
  LibllamaOptions theirs;
  theirs.n_ctx = 4096;
  theirs.n_threads = 1;
  auto oracle = LibllamaReference::Open(SharedHeads(), theirs);
  ASSERT_TRUE(oracle.ok()) << oracle.status().message();
  ASSERT_TRUE((*oracle)->Decode(all.first(kDepth), /*all_logits=*/false).ok());
  const auto in_tiles = (*oracle)->Decode(all.subspan(kDepth), /*all_logits=*/true);
  ASSERT_TRUE(in_tiles.ok());
  const std::vector<float> expected(in_tiles->begin(), in_tiles->begin() + static_cast<long>(n * kVocabulary));

  const auto packed = EngineWith(512);
  DecodeLast(*packed, 0, all.first(kDepth));
  const auto found = DecodeAll(*packed, 0, all.subspan(kDepth, n));
  // A sub-batch that is too small for the rows of all heads: row by row.
  const auto one_by_one = EngineWith(static_cast<int>(4 * n - 1));
  DecodeLast(*one_by_one, 0, all.first(kDepth));
  const auto plain = DecodeAll(*one_by_one, 0, all.subspan(kDepth, n));

  const double packed_error = RelativeDifference(expected, found);
  const double plain_error = RelativeDifference(expected, plain);
  EXPECT_LT(packed_error, 1e-5);
  EXPECT_LT(plain_error, 5e-2);
  EXPECT_LT(packed_error, plain_error / 100) << "or nothing was packed";
}

INSTANTIATE_TEST_SUITE_P(Tokens, PackedAttention, testing::Values(16, 32, 45, 63),
                         [](const auto& test) { return std::to_string(test.param); });

TEST(PackedAttentionInABatch, LeavesTheOthersAlone) {
  const auto tokens = SomeTokens(kDepth + 40, kVocabulary);
  const std::span<const int32_t> all(tokens);
  const auto engine = EngineWith(512);
  DecodeLast(*engine, 0, all.first(kDepth));
  const auto alone = DecodeAll(*engine, 0, all.subspan(kDepth, 32));
  engine->TruncateSequence(0, static_cast<int64_t>(kDepth));
  // Sequences of little length on both sides of the long one, in slots and in the batch.
  for (const SequenceId other : {1, 2}) {
    DecodeLast(*engine, other, all.first(20));
  }
  const auto others_alone = DecodeLast(*engine, 1, all.subspan(20, 1));
  engine->TruncateSequence(1, 20);

  std::vector<BatchToken> batch = {{tokens[20], 1, true}};
  for (size_t i = 0; i < 32; ++i) {
    batch.push_back({tokens[kDepth + i], 0, true});
  }
  batch.push_back({tokens[20], 2, true});
  std::vector<std::vector<float>> rows;
  const Status status =
      engine->Decode(batch, [&](int64_t, std::span<const float> row) { rows.emplace_back(row.begin(), row.end()); });
  ASSERT_TRUE(status.ok()) << status.message();
  ASSERT_EQ(rows.size(), 34U);
  EXPECT_LT(RelativeDifference(others_alone, rows.front()), 5e-2);
  EXPECT_LT(RelativeDifference(others_alone, rows.back()), 5e-2);
  for (size_t i = 0; i < 32; ++i) {
    EXPECT_LT(RelativeDifference(std::span(alone).subspan(i * kVocabulary, kVocabulary), rows[i + 1]), 1e-4) << i;
  }
}

}  // namespace
}  // namespace espalier::test
