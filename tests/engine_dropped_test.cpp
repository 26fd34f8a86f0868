// Every architecture, at every type, under every plan of a small model: against libllama on the file whose dropped
// blocks have a zero last matrix (they add nothing to the residual stream there), bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <tuple>

#include "runtime/engine.h"
#include "support/engines.h"
#include "support/models.h"
#include "text/libllama_reference.h"

namespace espalier::test {
namespace {

constexpr int kLayers = 3;

// What the architecture may have besides, in half of the models: Llama 3's rope, heads wider than their share.
RandomModelOptions SmallModel(const std::string& architecture, const std::string& type, bool tied) {
  RandomModelOptions options = ThreeLayers(type);
  options.architecture = architecture;
  options.tied_output = tied;
  options.rope_freq_factors = architecture == "llama" && !tied;
  options.biases = architecture == "qwen2";
  options.head_dim = architecture == "qwen3" && tied ? 128 : 0;
  return options;
}

std::string NameOf(const std::string& architecture, const std::string& type, bool tied) {
  return architecture + "_" + type + (tied ? "_tied" : "");
}

class EveryPlan : public testing::TestWithParam<std::tuple<std::string, std::string, bool>> {};

TEST_P(EveryPlan, LogitsAreBitIdenticalToLibllamaWithZeroedBlocks) {
  const auto& [architecture, type, tied] = GetParam();
  const std::string name = NameOf(architecture, type, tied);
  const auto model = OpenOrFail(RandomModel("three-layers-" + name, SmallModel(architecture, type, tied)));
  auto engine = OpenEngine(model, ExactOptions(), Plan::Dense(kLayers));
  const auto tokens = SomeTokens(40, model->hparams().n_vocab);
  const std::span<const int32_t> prompt(tokens.data(), 33);

  for (int mask = 0; mask < 1 << (2 * kLayers); ++mask) {
    Plan plan = Plan::Dense(kLayers);
    RandomModelOptions zeroed = SmallModel(architecture, type, tied);
    for (int b = 0; b < 2 * kLayers; ++b) {
      if ((mask >> b & 1) != 0) {
        plan.Drop({b});
        zeroed.zero.push_back({b});
      }
    }
    SCOPED_TRACE(plan.ToText());
    const std::string path = ScratchFolder() + "/zeroed-" + name + ".gguf";
    ASSERT_TRUE(GenerateRandomModel(zeroed, path).ok());
    LibllamaOptions theirs;
    theirs.n_threads = 1;
    auto oracle = LibllamaReference::Open(path, theirs);
    ASSERT_TRUE(oracle.ok()) << oracle.status().message();

    ASSERT_TRUE(engine->Apply(plan).ok());  // from the plan before: blocks go and return all the time
    engine->RemoveSequence(0);
    auto expected = (*oracle)->Decode(prompt, /*all_logits=*/true);
    ASSERT_TRUE(expected.ok());
    ASSERT_EQ(MaxDifference(*expected, DecodeAll(*engine, 0, prompt)), 0.0) << "prefill";
    for (size_t i = prompt.size(); i < tokens.size(); ++i) {
      expected = (*oracle)->Decode(std::span(tokens).subspan(i, 1), /*all_logits=*/true);
      ASSERT_TRUE(expected.ok());
      ASSERT_EQ(MaxDifference(*expected, DecodeAll(*engine, 0, std::span(tokens).subspan(i, 1))), 0.0) << "token " << i;
    }
  }
}

std::vector<std::string> ArchitecturesThereAre() {
  std::vector<std::string> names;
  for (const Architecture& architecture : Architectures()) {
    names.emplace_back(architecture.name);
  }
  return names;
}

INSTANTIATE_TEST_SUITE_P(ThreeLayers, EveryPlan,
                         testing::Combine(testing::ValuesIn(ArchitecturesThereAre()),
                                          testing::Values("F16", "Q8_0", "Q4_K_M"), testing::Bool()),
                         [](const auto& test) {
                           return NameOf(std::get<0>(test.param), std::get<1>(test.param), std::get<2>(test.param));
                         });

TEST(DroppedBlocks, AllDroppedLeavesEmbeddingAndHead) {
  const auto model = OpenOrFail(TwinPath());
  auto engine = OpenEngine(model, ExactOptions(), Plan::Nothing(model->n_layer()));
  const auto tokens = SomeTokens(5, model->hparams().n_vocab);
  // Without attention a token's logits cannot depend on what came before.
  auto others = SomeTokens(5, model->hparams().n_vocab, /*seed=*/9);
  others.back() = tokens.back();
  EXPECT_EQ(MaxDifference(DecodeLast(*engine, 0, tokens), DecodeLast(*engine, 1, others)), 0.0);
  EXPECT_EQ(engine->memory_in_use().kv_bytes, 0U);
}

TEST(DroppedBlocks, StructuredWidthIsRefusedClearly) {
  const auto model = OpenOrFail(TwinPath());
  Plan plan = Plan::Dense(model->n_layer());
  plan.set_keep(BlockId::Ffn(2), 0.5);
  const auto engine = Engine::Create(model, ExactOptions(), plan);
  ASSERT_FALSE(engine.ok());
  EXPECT_EQ(engine.status().code(), ErrorCode::kUnsupported);
  EXPECT_NE(engine.status().message().find("f2=0.5"), std::string::npos) << engine.status().message();
}

}  // namespace
}  // namespace espalier::test
