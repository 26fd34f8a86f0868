// Mean ablation: what a token adds to its residual row where it skips a block.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "base/file.h"
#include "runtime/engine.h"
#include "support/engines.h"
#include "support/models.h"
#include "support/small_llama.h"
#include "text/libllama_reference.h"

namespace espalier::test {
namespace {

// Batches of different shape go through different kernels; logits are in the range of -20 to 20.
constexpr double kShapeTolerance = 0.05;

std::shared_ptr<const BlockMeans> SomeMeans(const Model& model, float size) {
  auto means = std::make_shared<BlockMeans>();
  means->n_embd = model.hparams().n_embd;
  uint32_t state = 11;
  for (int64_t i = 0; i < model.n_block() * means->n_embd; ++i) {
    state = state * 1664525U + 1013904223U;
    means->values.push_back(size * (static_cast<float>(state >> 8) / 16777216.0f - 0.5f));
  }
  return means;
}

// The two-layer model whose dropped blocks add their means and nothing else: their last matrix is zero, its bias the
// mean.
std::string WithMeansAsBiases(const Plan& plan, const BlockMeans& means) {
  GgufBytes file = TwoLayerLlama();
  const auto last_matrix = [](BlockId block) {
    return "blk." + std::to_string(block.layer()) + (block.is_attention() ? ".attn_output" : ".ffn_down");
  };
  for (const BlockId block : plan.dropped()) {
    file.Tensor(last_matrix(block) + ".bias").ne = {means.n_embd};
  }
  return WithRandomData(file, [&](const RawTensor& tensor, uint64_t i) -> std::optional<float> {
    for (const BlockId block : plan.dropped()) {
      if (tensor.name == last_matrix(block) + ".weight") {
        return 0.0f;
      }
      if (tensor.name == last_matrix(block) + ".bias") {
        return means.of(block)[i];
      }
    }
    return std::nullopt;
  });
}

std::unique_ptr<LibllamaReference> OpenOracle(const std::string& path) {
  LibllamaOptions options;
  options.n_ctx = 512;
  options.n_threads = 1;
  auto oracle = LibllamaReference::Open(path, options);
  EXPECT_TRUE(oracle.ok()) << oracle.status().message();
  return oracle.ok() ? std::move(*oracle) : nullptr;
}

TEST(Means, LogitsOfEveryPlanAreBitIdenticalToLibllamaWithTheMeansAsBiases) {
  const std::string whole = ScratchFolder() + "/means-whole.gguf";
  ASSERT_TRUE(WriteWholeFile(whole, WithRandomData(TwoLayerLlama())).ok());
  const auto model = OpenOrFail(whole);
  EngineOptions options = ExactOptions();
  options.n_ctx = 512;
  options.means = SomeMeans(*model, 1);
  auto engine = OpenEngine(model, options, Plan::Dense(model->n_layer()));
  ASSERT_NE(engine, nullptr);
  const auto tokens = SomeTokens(60, model->hparams().n_vocab);
  const std::span<const int32_t> all(tokens);
  for (int mask = 0; mask < 16; ++mask) {
    Plan plan = Plan::Dense(model->n_layer());
    for (int b = 0; b < model->n_block(); ++b) {
      if ((mask >> b & 1) != 0) {
        plan.Drop({b});
      }
    }
    SCOPED_TRACE(plan.ToText());
    const std::string path = ScratchFolder() + "/means-as-biases.gguf";
    ASSERT_TRUE(WriteWholeFile(path, WithMeansAsBiases(plan, *options.means)).ok());
    const auto oracle = OpenOracle(path);
    ASSERT_NE(oracle, nullptr);
    ASSERT_TRUE(engine->Apply(plan).ok());
    engine->RemoveSequence(0);
    for (const auto part : {all.first(50), all.subspan(50, 1), all.subspan(51)}) {
      const auto expected = oracle->Decode(part, /*all_logits=*/true);
      ASSERT_TRUE(expected.ok()) << expected.status().message();
      EXPECT_EQ(MaxDifference(*expected, DecodeAll(*engine, 0, part)), 0.0) << part.size() << " tokens";
    }
    // Rows that do not come out are trimmed on the way: behind the last attention block that runs, which is libllama's
    // last or comes sooner, and then fewer rows make other sums.
    oracle->ClearMemory();
    engine->RemoveSequence(0);
    const auto expected = oracle->Decode(all, /*all_logits=*/false);
    ASSERT_TRUE(expected.ok());
    EXPECT_LE(MaxDifference(*expected, DecodeLast(*engine, 0, all)), plan.kept(BlockId::Attention(1)) ? 0.0 : 1e-5);
  }
}

class MeansOfTheTwin : public testing::Test {
 protected:
  void SetUp() override {
    model_ = OpenOrFail(TwinPath());
    dense_ = Plan::Dense(model_->n_layer());
    options_ = ExactOptions();
    options_.n_ctx = 512;
    options_.means = SomeMeans(*model_, 10);
    engine_ = OpenEngine(model_, options_, dense_);
  }
  Plan Drop(const std::string& blocks) const { return *Plan::ParseDrop(blocks, model_->n_layer()); }
  std::vector<int32_t> Tokens(size_t n, uint32_t seed) const { return SomeTokens(n, model_->hparams().n_vocab, seed); }
  // Logits of the tokens behind those without logits, under the sequence's plan, in a batch of its own.
  std::vector<float> Alone(const Plan& plan, std::span<const int32_t> tokens, size_t without) {
    engine_->RemoveSequence(9);
    EXPECT_TRUE(engine_->SetSequencePlan(9, plan).ok());
    std::vector<BatchToken> batch;
    for (size_t i = 0; i < without; ++i) {
      batch.push_back({tokens[i], 9, false});
    }
    EXPECT_TRUE(engine_->Decode(batch, [](int64_t, std::span<const float>) {}).ok());
    auto logits = DecodeAll(*engine_, 9, tokens.subspan(without));
    engine_->RemoveSequence(9);
    return logits;
  }

  std::shared_ptr<const Model> model_;
  Plan dense_;
  EngineOptions options_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(MeansOfTheTwin, ChangeNothingWhereNothingIsSkippedAndMuchElsewhere) {
  EngineOptions without = options_;
  without.means = nullptr;
  auto plain = OpenEngine(model_, without, dense_);
  const auto tokens = Tokens(40, 2);
  EXPECT_EQ(MaxDifference(DecodeAll(*plain, 0, tokens), DecodeAll(*engine_, 0, tokens)), 0.0);
  const Plan plan = Drop("a1,f3");
  ASSERT_TRUE(plain->SetSequencePlan(1, plan).ok());
  EXPECT_GT(MaxDifference(DecodeAll(*plain, 1, tokens), Alone(plan, tokens, 0)), 0.5);

  auto zeros = std::make_shared<BlockMeans>(*options_.means);
  std::fill(zeros->values.begin(), zeros->values.end(), 0.0f);
  without.means = zeros;
  auto with_zeros = OpenEngine(model_, without, plan);
  plain->RemoveSequence(0);
  ASSERT_TRUE(plain->Apply(plan).ok());
  EXPECT_EQ(MaxDifference(DecodeAll(*plain, 0, tokens), DecodeAll(*with_zeros, 0, tokens)), 0.0);
}

TEST_F(MeansOfTheTwin, PlanOfASequenceEqualsThatPlanResident) {
  const auto tokens = Tokens(60, 3);
  // Attention at the front, in the middle and at the end; no attention at all; nothing at all.
  for (const char* drop : {"a0,f0", "a1,f2,a4", "a5,f5", "a0,a1,a2,a3,a4,a5", "a0,a1,a2,a3,a4,a5,f0,f1,f2,f3,f4,f5"}) {
    SCOPED_TRACE(drop);
    const Plan plan = Drop(drop);
    ASSERT_TRUE(engine_->Apply(dense_).ok());
    for (const size_t without : {size_t{0}, size_t{50}}) {
      const auto restricted = Alone(plan, tokens, without);
      ASSERT_TRUE(engine_->Apply(plan).ok());
      EXPECT_EQ(MaxDifference(restricted, Alone(dense_, tokens, without)), 0.0);
      ASSERT_TRUE(engine_->Apply(dense_).ok());
    }
  }
}

TEST_F(MeansOfTheTwin, MixedBatchesEqualSeparateRuns) {
  const std::vector<Plan> plans = {dense_, Drop("a2,f3"), Drop("a0,a4,f1,f5"), Drop("a5,f5"),
                                   Drop("a0,a1,a2,a3,a4,a5")};
  constexpr size_t kLength = 45;  // mixed sub-batches of 225 tokens
  std::vector<std::vector<int32_t>> prompts;
  std::vector<BatchToken> quiet;
  std::vector<BatchToken> loud;
  for (size_t s = 0; s < plans.size(); ++s) {
    prompts.push_back(Tokens(kLength, static_cast<uint32_t>(s + 1)));
    ASSERT_TRUE(engine_->SetSequencePlan(static_cast<SequenceId>(s), plans[s]).ok());
  }
  for (size_t i = 0; i < kLength; ++i) {  // interleaved; the last five of each want logits, the rest come without any
    for (size_t s = 0; s < plans.size(); ++s) {
      (i + 5 < kLength ? quiet : loud).push_back({prompts[s][i], static_cast<SequenceId>(s), i + 5 >= kLength});
    }
  }
  ASSERT_TRUE(engine_->Decode(quiet, [](int64_t, std::span<const float>) { FAIL() << "no logits wanted"; }).ok());
  std::vector<std::vector<float>> together(plans.size());
  const Status status = engine_->Decode(loud, [&](int64_t row, std::span<const float> logits) {
    auto& mine = together[static_cast<size_t>(row) % plans.size()];
    mine.insert(mine.end(), logits.begin(), logits.end());
  });
  ASSERT_TRUE(status.ok()) << status.message();
  for (size_t s = 0; s < plans.size(); ++s) {
    EXPECT_LT(MaxDifference(together[s], Alone(plans[s], prompts[s], kLength - 5)), kShapeTolerance)
        << "sequence " << s;
  }
}

TEST_F(MeansOfTheTwin, ARunningSequenceGetsTheMeanOfAnAttentionBlockThatReturned) {
  const auto tokens = Tokens(30, 4);
  const std::span<const int32_t> all(tokens);
  ASSERT_TRUE(engine_->Apply(Drop("a2")).ok());
  DecodeLast(*engine_, 0, all.first(20));
  const auto expected = DecodeLast(*engine_, 0, all.subspan(20, 1));
  engine_->TruncateSequence(0, 20);
  ASSERT_TRUE(engine_->Apply(dense_).ok());
  ASSERT_EQ(engine_->SkippedBlocks(0).size(), 1U);
  EXPECT_EQ(MaxDifference(expected, DecodeLast(*engine_, 0, all.subspan(20, 1))), 0.0);
  // Beside a sequence that runs everything.
  engine_->TruncateSequence(0, 20);
  std::vector<std::vector<float>> rows;
  ASSERT_TRUE(
      engine_
          ->Decode(std::vector<BatchToken>{{tokens[20], 0, true}, {tokens[0], 1, true}},
                   [&](int64_t, std::span<const float> logits) { rows.emplace_back(logits.begin(), logits.end()); })
          .ok());
  EXPECT_LT(MaxDifference(expected, rows[0]), kShapeTolerance);
}

TEST_F(MeansOfTheTwin, AreCountedAndForetold) {
  options_.n_ubatch = 64;
  engine_ = OpenEngine(model_, options_, dense_);
  const MemoryModel& foretold = engine_->memory_model();
  EngineOptions without = options_;
  without.means = nullptr;
  const auto plain = MeasureMemoryModel(model_, without);
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(foretold.global_bytes, MeasureMemoryModel(model_, options_)->global_bytes);
  const uint64_t bytes = options_.means->values.size() * sizeof(float);
  EXPECT_GE(foretold.global_bytes, plain->global_bytes + bytes - 4096);  // pages are shared with other globals
  EXPECT_LE(foretold.global_bytes, plain->global_bytes + bytes + 4096);

  // Compute buffers reserved for the worst case hold for batches of every kind, with means added anywhere.
  for (const char* drop : {"a0,f5", "f0,f1,f2,f3,f4,f5", "a0,a1,a2,a3,a4,a5,f0,f1,f2,f3,f4,f5"}) {
    SCOPED_TRACE(drop);
    for (const Plan& resident : {dense_, Drop(drop)}) {
      ASSERT_TRUE(engine_->Apply(resident).ok());
      ASSERT_TRUE(engine_->SetSequencePlan(0, Drop(drop)).ok());
      ASSERT_TRUE(engine_->SetSequencePlan(1, Drop("a1,f2")).ok());
      std::vector<BatchToken> batch;
      for (int32_t i = 0; i < 128; ++i) {
        batch.push_back({3 + i, i % 3, true});
      }
      ASSERT_TRUE(engine_->Decode(batch, [](int64_t, std::span<const float>) {}).ok());
      const auto predicted = PredictFootprint(foretold, resident, {3, 128, 43});
      EXPECT_EQ(engine_->memory_in_use().compute_bytes, predicted.compute_bytes);
      EXPECT_EQ(engine_->memory_in_use().weight_bytes, predicted.weight_bytes);
      for (SequenceId s : {0, 1, 2}) {
        engine_->RemoveSequence(s);
      }
    }
  }
}

TEST_F(MeansOfTheTwin, OfAnotherShapeAreRefused) {
  auto means = std::make_shared<BlockMeans>(*options_.means);
  means->values.pop_back();
  options_.means = means;
  const auto engine = Engine::Create(model_, options_, dense_);
  ASSERT_FALSE(engine.ok());
  EXPECT_EQ(engine.status().code(), ErrorCode::kInvalidArgument);
  EXPECT_NE(engine.status().message().find(std::to_string(means->values.size())), std::string::npos)
      << engine.status().message();
  means->values.push_back(0);
  means->n_embd /= 2;
  EXPECT_FALSE(MeasureMemoryModel(model_, options_).ok());
  means->n_embd *= 2;
  EXPECT_TRUE(MeasureMemoryModel(model_, options_).ok());
}

}  // namespace
}  // namespace espalier::test
