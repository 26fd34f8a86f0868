// Blocks run one at a time on a window give the engine's logits for that window, bit for bit.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <thread>
#include <tuple>

#include "runtime/block_runner.h"
#include "runtime/engine.h"
#include "support/engines.h"
#include "support/models.h"

namespace espalier::test {
namespace {

std::string ModelPath(const std::string& name) {
  return name == "twin" ? TwinPath() : RandomModel("block-runner-" + name, ThreeLayers(name));
}

EngineOptions WindowOptions(KvType kv_type = KvType::kF16) {
  EngineOptions options;
  options.n_threads = 1;
  options.n_ubatch = 300;
  options.head_rows = 64;
  options.key_type = options.value_type = kv_type;
  return options;
}

std::unique_ptr<BlockRunner> OpenRunner(std::shared_ptr<const Model> model, const EngineOptions& options,
                                        int max_resident_blocks = 0) {
  auto runner = BlockRunner::Create(std::move(model), options, max_resident_blocks);
  EXPECT_TRUE(runner.ok()) << runner.status().message();
  return runner.ok() ? std::move(*runner) : nullptr;
}

std::vector<float> Embed(BlockRunner& runner, std::span<const int32_t> tokens) {
  std::vector<float> hidden(tokens.size() * static_cast<size_t>(runner.model().hparams().n_embd));
  const Status status = runner.Embed(tokens, hidden);
  EXPECT_TRUE(status.ok()) << status.message();
  return hidden;
}

std::vector<float> Head(BlockRunner& runner, std::span<const float> hidden) {
  std::vector<float> logits;
  int64_t expected_row = 0;
  const Status status = runner.Head(hidden, [&](int64_t row, std::span<const float> values) {
    EXPECT_EQ(row, expected_row++);
    logits.insert(logits.end(), values.begin(), values.end());
  });
  EXPECT_TRUE(status.ok()) << status.message();
  return logits;
}

std::vector<BlockId> Kept(const Plan& plan) {
  std::vector<BlockId> kept;
  for (int b = 0; b < plan.n_block(); ++b) {
    if (plan.kept({b})) {
      kept.push_back({b});
    }
  }
  return kept;
}

bool SameBits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

// Logits of a window under a plan: block by block, and the kept blocks from the `split`th on in one graph.
std::vector<float> OneByOne(BlockRunner& runner, const Plan& plan, std::span<const int32_t> tokens) {
  std::vector<float> hidden = Embed(runner, tokens);
  for (const BlockId block : Kept(plan)) {
    EXPECT_TRUE(runner.Run(block, hidden, hidden).ok());
  }
  return Head(runner, hidden);
}
std::vector<float> InTwoParts(BlockRunner& runner, const Plan& plan, std::span<const int32_t> tokens, size_t split) {
  const std::vector<float> in = Embed(runner, tokens);
  const std::vector<BlockId> kept = Kept(plan);
  std::vector<float> middle(in.size());
  std::vector<float> out(in.size());
  EXPECT_TRUE(runner.RunAll(std::span(kept).first(split), in, middle).ok());
  EXPECT_TRUE(runner.RunAll(std::span(kept).subspan(split), middle, out).ok());
  return Head(runner, out);
}

class EngineEquality : public testing::TestWithParam<std::tuple<std::string, KvType>> {};

TEST_P(EngineEquality, LogitsOfAWindowAreTheEnginesBitForBit) {
  const auto& [name, kv_type] = GetParam();
  const auto model = OpenOrFail(ModelPath(name));
  const EngineOptions options = WindowOptions(kv_type);
  auto runner = OpenRunner(model, options);
  auto one_block_runner = OpenRunner(model, options, /*max_resident_blocks=*/1);
  ASSERT_NE(runner, nullptr);
  ASSERT_NE(one_block_runner, nullptr);

  EngineOptions engine_options = options;
  engine_options.n_ctx = 512;
  const Plan dense = Plan::Dense(model->n_layer());
  auto engine = OpenEngine(model, engine_options, dense);
  Plan some = dense;
  some.Drop(BlockId::Attention(1));
  some.Drop(BlockId::Ffn(0));
  Plan no_attention = dense;
  for (int il = 0; il < model->n_layer(); ++il) {
    no_attention.Drop(BlockId::Attention(il));
  }
  // Longer and shorter windows in turn: nothing of the last one may show.
  for (const size_t length : {size_t{37}, size_t{300}, size_t{1}, size_t{256}, size_t{257}}) {
    const auto tokens = SomeTokens(length, model->hparams().n_vocab, static_cast<uint32_t>(length));
    for (const Plan& plan : {dense, some, no_attention}) {
      SCOPED_TRACE(std::to_string(length) + " tokens, " + plan.ToText());
      ASSERT_TRUE(engine->Apply(plan).ok());
      engine->RemoveSequence(0);
      const auto expected = DecodeAll(*engine, 0, tokens);
      EXPECT_TRUE(SameBits(expected, OneByOne(*runner, plan, tokens)));
      EXPECT_TRUE(SameBits(expected, OneByOne(*one_block_runner, plan, tokens)));
      for (const size_t split : {size_t{0}, size_t{2}}) {
        EXPECT_TRUE(SameBits(expected, InTwoParts(*runner, plan, tokens, split))) << split;
        EXPECT_TRUE(SameBits(expected, InTwoParts(*one_block_runner, plan, tokens, split))) << split;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, EngineEquality,
                         testing::Combine(testing::Values("F16", "Q4_K_M", "twin"),
                                          testing::Values(KvType::kF16, KvType::kQ8_0, KvType::kQ4_0)),
                         [](const auto& test) {
                           return std::get<0>(test.param) + "_" + KvTypeName(std::get<1>(test.param));
                         });

TEST(BlockRunner, SeveralThreadsGiveTheSameBits) {
  const auto model = OpenOrFail(ModelPath("Q4_K_M"));
  EngineOptions options = WindowOptions();
  const auto tokens = SomeTokens(200, model->hparams().n_vocab);
  const Plan dense = Plan::Dense(model->n_layer());
  auto one = OpenRunner(model, options);
  options.n_threads = 3;
  auto three = OpenRunner(model, options);
  EXPECT_TRUE(SameBits(OneByOne(*one, dense, tokens), OneByOne(*three, dense, tokens)));
}

class HeadRowsOfType : public testing::TestWithParam<std::string> {};

TEST_P(HeadRowsOfType, GiveTheHeadsLogits) {
  const auto model = OpenOrFail(ModelPath(GetParam()));
  EngineOptions options = WindowOptions();
  options.repack = false;
  auto runner = OpenRunner(model, options);
  ASSERT_NE(runner, nullptr);
  const HeadRows* const rows = runner->head_rows();
  ASSERT_NE(rows, nullptr);
  const auto n_embd = static_cast<size_t>(rows->n_embd());
  const auto n_vocab = static_cast<size_t>(rows->n_vocab());
  const std::vector<float> hidden = Embed(*runner, SomeTokens(20, model->hparams().n_vocab));
  const std::vector<float> logits = Head(*runner, hidden);
  std::vector<float> normed(hidden.size());
  ASSERT_TRUE(runner->FinalNorm(hidden, normed).ok());
  const std::vector<int32_t> ids = {0, 7, 511, 7, 300};
  std::vector<float> some(ids.size());
  std::vector<float> row(n_embd);
  HeadRows::Activations activations;
  for (size_t i = 0; i < 20; ++i) {
    rows->Round(std::span(normed).subspan(i * n_embd, n_embd), &activations);
    rows->Logits(&activations, ids, some);
    for (size_t j = 0; j < ids.size(); ++j) {
      const float expected = logits[i * n_vocab + static_cast<size_t>(ids[j])];
      EXPECT_NEAR(some[j], expected, 2e-5 * (1 + std::abs(expected)));
      rows->Decode(ids[j], row);
      double product = 0;
      for (size_t k = 0; k < n_embd; ++k) {
        product += static_cast<double>(row[k]) * static_cast<double>(activations.values[k]);
      }
      EXPECT_NEAR(product, expected, 2e-5 * (1 + std::abs(expected)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, HeadRowsOfType, testing::Values("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K_M", "Q6_K"),
                         [](const auto& test) { return test.param; });

TEST(BlockRunner, HoldsNoMoreBlocksThanAllowedAndTheLeastRecentlyUsedGoes) {
  const auto model = OpenOrFail(ModelPath("F16"));
  const EngineOptions options = WindowOptions();
  auto all = OpenRunner(model, options);
  auto two = OpenRunner(model, options, /*max_resident_blocks=*/2);
  const auto memory = MeasureMemoryModel(model, options);
  ASSERT_TRUE(memory.ok());
  const auto bytes = [&](int b) { return memory->block_bytes[static_cast<size_t>(b)]; };
  uint64_t blocks = 0;
  for (int b = 0; b < model->n_block(); ++b) {
    blocks += bytes(b);
  }
  EXPECT_EQ(all->loaded_bytes(), blocks);
  EXPECT_EQ(two->loaded_bytes(), 0U);

  std::vector<float> hidden = Embed(*two, SomeTokens(10, model->hparams().n_vocab));
  uint64_t expected = 0;
  const auto run = [&](int b, bool is_loaded) {
    ASSERT_TRUE(two->Run({b}, hidden, hidden).ok());
    expected += is_loaded ? bytes(b) : 0;
    EXPECT_EQ(two->loaded_bytes(), expected) << b;
  };
  run(0, true);
  run(1, true);
  run(0, false);
  run(3, true);  // 1 goes
  run(0, false);
  run(1, true);  // 3 goes
  run(3, true);
  EXPECT_LT(two->peak_bytes() + blocks - 2 * std::max(bytes(0), bytes(1)), all->peak_bytes() + 1);
  EXPECT_GT(two->peak_bytes(), memory->global_bytes + bytes(0) + bytes(1));
}

TEST(BlockRunner, CountsMultiplyAdds) {
  const auto model = OpenOrFail(ModelPath("F16"));  // n_embd 256, n_ff 512, 4 heads of 64 over 2 KV heads, 512 tokens
  auto runner = OpenRunner(model, WindowOptions());
  // Query and output 256 x 256, key and value 256 x 128; scores and values 10 x 10 pairs of 256 each.
  EXPECT_EQ(runner->BlockFlops(BlockId::Attention(1), 10), 2 * (10 * (2 * 65536 + 2 * 32768) + 2 * 100 * 256));
  EXPECT_EQ(runner->BlockFlops(BlockId::Ffn(1), 10), 2 * 10 * 3 * 131072);
  EXPECT_EQ(runner->HeadFlops(10), 2 * 10 * 131072);
  EXPECT_EQ(runner->BlockFlops(BlockId::Ffn(0), 1), 786432);
}

TEST(BlockRunner, RefusesWhatDoesNotFit) {
  const auto model = OpenOrFail(ModelPath("F16"));
  auto runner = OpenRunner(model, WindowOptions());
  std::vector<float> rows(301 * 256);
  const auto message = [](const Status& status) {
    EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument);
    return status.message();
  };
  EXPECT_EQ(message(runner->Run({0}, rows, rows)), "window of 301 tokens: expected 1 to 300");
  EXPECT_EQ(message(runner->Run({6}, std::span(rows).first(256), std::span(rows).first(256))),
            "block 6: expected 0 to 5");
  EXPECT_NE(message(runner->Run({0}, std::span(rows).first(257), std::span(rows).first(257))), "");
  EXPECT_NE(message(runner->Run({0}, std::span(rows).first(256), std::span(rows).first(512))), "");
  EXPECT_EQ(message(runner->Embed(std::vector<int32_t>{1, 512}, std::span(rows).first(512))),
            "token 512: expected 0 to 511");
  EXPECT_NE(message(runner->Embed(std::vector<int32_t>{1, 2}, rows)), "");
  EXPECT_NE(message(runner->Head(std::span(rows).first(100), [](int64_t, std::span<const float>) {})), "");
  EXPECT_NE(message(BlockRunner::Create(model, WindowOptions(), -1).status()), "");
  EngineOptions no_tokens = WindowOptions();
  no_tokens.n_ubatch = 0;
  EXPECT_NE(message(BlockRunner::Create(model, no_tokens).status()), "");
}

TEST(BlockRunner, AbortStopsTheNextCallOnce) {
  const auto model = OpenOrFail(ModelPath("F16"));
  auto runner = OpenRunner(model, WindowOptions());
  const auto tokens = SomeTokens(20, model->hparams().n_vocab);
  const Plan dense = Plan::Dense(model->n_layer());
  const auto expected = OneByOne(*runner, dense, tokens);
  std::vector<float> hidden = Embed(*runner, tokens);
  std::thread([&] { runner->RequestAbort(); }).join();
  EXPECT_EQ(runner->Run({0}, hidden, hidden).code(), ErrorCode::kAborted);
  EXPECT_TRUE(SameBits(expected, OneByOne(*runner, dense, tokens)));
}

}  // namespace
}  // namespace espalier::test
