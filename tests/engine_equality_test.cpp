// Dense logits against libllama on the same file: bit for bit, at equal batch shape and repack setting.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <tuple>

#include "runtime/engine.h"
#include "support/engines.h"
#include "support/models.h"
#include "text/libllama_reference.h"

namespace espalier::test {
namespace {

class DenseEquality : public testing::TestWithParam<std::tuple<std::string, bool, KvType>> {};

TEST_P(DenseEquality, LogitsAreBitIdenticalToLibllama) {
  const auto& [type, repack, kv_type] = GetParam();
  const std::string path = TwinAt(type);
  const auto model = OpenOrFail(path);
  LibllamaOptions theirs;
  theirs.n_ctx = 1024;
  theirs.n_threads = 1;
  theirs.repack = repack;
  theirs.key_type = theirs.value_type = KvTypeName(kv_type);
  auto oracle = LibllamaReference::Open(path, theirs);
  ASSERT_TRUE(oracle.ok()) << oracle.status().message();

  EngineOptions options = ExactOptions();
  options.repack = repack;
  options.n_ctx = 1024;
  options.key_type = options.value_type = kv_type;
  auto engine = OpenEngine(model, options, Plan::Dense(model->n_layer()));

  // One token, a few, a whole sub-batch and more; then decoding on top, over a multiple of the KV padding.
  const auto tokens = SomeTokens(600, model->hparams().n_vocab);
  size_t at = 0;
  for (const size_t n : {size_t{1}, size_t{37}, size_t{512}, size_t{1}, size_t{1}, size_t{13}}) {
    const std::vector<int32_t> part(tokens.begin() + static_cast<long>(at), tokens.begin() + static_cast<long>(at + n));
    auto expected = (*oracle)->Decode(part, /*all_logits=*/true);
    ASSERT_TRUE(expected.ok()) << expected.status().message();
    const auto found = DecodeAll(*engine, 0, part);
    ASSERT_EQ(expected->size(), found.size());
    EXPECT_EQ(MaxDifference(*expected, found), 0.0) << n << " tokens after " << at;
    EXPECT_EQ(std::memcmp(expected->data(), found.data(), found.size() * sizeof(float)), 0);
    at += n;
  }
  // Only the last row wanted: rows are trimmed after the last attention.
  const std::vector<int32_t> part(tokens.begin(), tokens.begin() + 29);
  auto expected = (*oracle)->Decode(part, /*all_logits=*/false);
  ASSERT_TRUE(expected.ok());
  EXPECT_EQ(MaxDifference(*expected, DecodeLast(*engine, 0, part)), 0.0);
}

INSTANTIATE_TEST_SUITE_P(Twin, DenseEquality,
                         testing::Combine(testing::Values("F16", "Q8_0", "Q4_0", "Q4_K_M"), testing::Bool(),
                                          testing::Values(KvType::kF16, KvType::kQ8_0, KvType::kQ4_0)),
                         [](const auto& test) {
                           return std::get<0>(test.param) + (std::get<1>(test.param) ? "_repacked_" : "_plain_") +
                                  KvTypeName(std::get<2>(test.param));
                         });

}  // namespace
}  // namespace espalier::test
