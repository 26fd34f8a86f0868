// Every way in which a file of architecture llama may differ from the plain one, against libllama on the same file:
// bit for bit. The models are tiny, of random weights, and written by hand.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>

#include "base/file.h"
#include "runtime/engine.h"
#include "support/engines.h"
#include "support/gguf_bytes.h"
#include "support/models.h"
#include "support/small_llama.h"
#include "text/libllama_reference.h"

namespace espalier::test {
namespace {

struct Variant {
  const char* name;
  std::function<void(GgufBytes&)> edit;
};

void AddBiases(GgufBytes& file) {
  for (const std::string block : {"blk.0.", "blk.1."}) {
    file.Tensor(block + "attn_q.bias").ne = {64};
    file.Tensor(block + "attn_k.bias").ne = {32};
    file.Tensor(block + "attn_v.bias").ne = {32};
    file.Tensor(block + "attn_output.bias").ne = {64};
    file.Tensor(block + "ffn_gate.bias").ne = {96};
    file.Tensor(block + "ffn_up.bias").ne = {96};
    file.Tensor(block + "ffn_down.bias").ne = {64};
  }
}

void SetScaling(GgufBytes& file, const char* type, float factor) {
  file.Set("llama.rope.scaling.type", Str(type));
  file.Set("llama.rope.scaling.factor", F32(factor));
}

void WidenHeads(GgufBytes& file) {
  file.Set("llama.attention.key_length", U32(32));
  file.Set("llama.attention.value_length", U32(32));
  file.Set("llama.rope.dimension_count", U32(32));
  for (const std::string block : {"blk.0.", "blk.1."}) {
    file.Tensor(block + "attn_q.weight").ne = {64, 128};
    file.Tensor(block + "attn_k.weight").ne = {64, 64};
    file.Tensor(block + "attn_v.weight").ne = {64, 64};
    file.Tensor(block + "attn_output.weight").ne = {128, 64};
  }
}

const Variant kVariants[] = {
    {"Plain", [](GgufBytes&) {}},
    {"TiedOutput", [](GgufBytes& f) { f.RemoveTensor("output.weight"); }},
    {"Biases", AddBiases},
    {"OneBias", [](GgufBytes& f) { f.Tensor("blk.1.attn_v.bias").ne = {32}; }},
    {"RopeBase500000", [](GgufBytes& f) { f.Set("llama.rope.freq_base", F32(500000)); }},
    {"RopeFrequencyFactors", [](GgufBytes& f) { f.Tensor("rope_freqs.weight").ne = {8}; }},
    {"RopeLinear", [](GgufBytes& f) { SetScaling(f, "linear", 4); }},
    {"RopeLinearByItsOldKey", [](GgufBytes& f) { f.Set("llama.rope.scale_linear", F32(2)); }},
    {"RopeScalingOfTypeNone", [](GgufBytes& f) { SetScaling(f, "none", 4); }},
    {"RopeYarn",
     [](GgufBytes& f) {
       SetScaling(f, "yarn", 8);
       f.Set("llama.rope.scaling.original_context_length", U32(64));
     }},
    {"RopeYarnWithAttentionFactor",
     [](GgufBytes& f) {
       SetScaling(f, "yarn", 3);
       f.Set("llama.rope.scaling.attn_factor", F32(1.25f));
     }},
    {"RopeYarnThatShrinks", [](GgufBytes& f) { SetScaling(f, "yarn", 0.5f); }},
    {"HeadsWiderThanTheirShare", WidenHeads},
    {"LargeEpsilon", [](GgufBytes& f) { f.Set("llama.attention.layer_norm_rms_epsilon", F32(0.125f)); }},
};

class LlamaVariant : public testing::TestWithParam<Variant> {};

TEST_P(LlamaVariant, LogitsAreBitIdenticalToLibllama) {
  GgufBytes file = TwoLayerLlama();
  GetParam().edit(file);
  const std::string path = ScratchFolder() + "/variant-" + GetParam().name + ".gguf";
  ASSERT_TRUE(WriteWholeFile(path, WithRandomData(file)).ok());
  const auto model = OpenOrFail(path);
  ASSERT_NE(model, nullptr);

  LibllamaOptions theirs;
  theirs.n_ctx = 512;
  theirs.n_threads = 1;
  auto oracle = LibllamaReference::Open(path, theirs);
  ASSERT_TRUE(oracle.ok()) << oracle.status().message();
  EngineOptions ours = ExactOptions();
  ours.n_ctx = 512;
  auto engine = OpenEngine(model, ours, Plan::Dense(model->n_layer()));
  ASSERT_NE(engine, nullptr);

  // Positions beyond YaRN's original context included.
  const auto tokens = SomeTokens(160, model->hparams().n_vocab);
  const std::span<const int32_t> all(tokens);
  for (const auto part : {all.first(150), all.subspan(150, 1), all.subspan(151)}) {
    const auto expected = (*oracle)->Decode(part, /*all_logits=*/true);
    ASSERT_TRUE(expected.ok()) << expected.status().message();
    const auto found = DecodeAll(*engine, 0, part);
    ASSERT_EQ(expected->size(), found.size());
    EXPECT_EQ(MaxDifference(*expected, found), 0.0);
    EXPECT_EQ(std::memcmp(expected->data(), found.data(), found.size() * sizeof(float)), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Files, LlamaVariant, testing::ValuesIn(kVariants),
                         [](const auto& test) { return std::string(test.param.name); });

// The variants differ in what they compute, or the comparison above would prove nothing.
TEST(LlamaVariants, ChangeTheLogits) {
  std::vector<std::vector<float>> seen;
  for (const Variant& variant : kVariants) {
    GgufBytes file = TwoLayerLlama();
    variant.edit(file);
    const std::string path = ScratchFolder() + "/variant-" + variant.name + "-distinct.gguf";
    ASSERT_TRUE(WriteWholeFile(path, WithRandomData(file)).ok());
    const auto model = OpenOrFail(path);
    auto engine = OpenEngine(model, ExactOptions(), Plan::Dense(model->n_layer()));
    ASSERT_NE(engine, nullptr);
    const auto logits = DecodeLast(*engine, 0, SomeTokens(80, model->hparams().n_vocab));
    // Scaling of type none is the plain model, and must be.
    const bool same_as_plain = std::string_view(variant.name) == "RopeScalingOfTypeNone";
    for (size_t i = 0; i < seen.size(); ++i) {
      EXPECT_EQ(MaxDifference(seen[i], logits) == 0.0, same_as_plain && i == 0)
          << variant.name << " against " << kVariants[i].name;
    }
    seen.push_back(logits);
  }
}

}  // namespace
}  // namespace espalier::test
