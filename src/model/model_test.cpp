#include "model/model.h"

#include <gtest/gtest.h>

#include <functional>

#include "support/gguf_bytes.h"
#include "support/paths.h"

namespace espalier {
namespace {

using namespace test;  // NOLINT: the vocabulary of these tests

Result<std::shared_ptr<const Model>> Load(const GgufBytes& file) {
  auto gguf = GgufFile::Parse(Source(file.Build()));
  if (!gguf.ok()) {
    return gguf.status();
  }
  return Model::FromGguf(*gguf);
}

TEST(Model, OpensTheReferenceModels) {
  for (const auto& [name, layers] : {std::pair{"espalier-reference-f16", 16}, std::pair{"espalier-twin-f16", 6}}) {
    const auto opened = Model::Open(test::ModelPath(std::string(name) + ".gguf"));
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    const Model& model = **opened;
    EXPECT_EQ(model.n_layer(), layers);
    EXPECT_EQ(model.n_block(), 2 * layers);
    EXPECT_EQ(model.quantization(), "F16");
    EXPECT_TRUE(model.hparams().tied_output);
    // Attention: norm 256 F32; q and output 256 x 256, k and v 256 x 128 in F16. FFN: norm; three of 256 x 768.
    EXPECT_EQ(model.block(BlockId::Attention(layers - 1)).file_bytes, 1024u + 2 * (2 * 65536 + 2 * 32768));
    EXPECT_EQ(model.block(BlockId::Ffn(0)).file_bytes, 1024u + 2 * 3 * 256 * 768);
    EXPECT_EQ(model.globals().file_bytes, 1024u + 2 * 256 * 8192);
  }
}

TEST(Model, MapsEveryTensorToItsRole) {
  const auto loaded = Load(TinyLlama());
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  const Model& model = **loaded;
  const TensorGroup& attention = model.block(BlockId::Attention(0));
  const TensorGroup& ffn = model.block(BlockId::Ffn(0));
  EXPECT_EQ(attention.get(TensorRole::kQuery)->name, "blk.0.attn_q.weight");
  EXPECT_EQ(attention.get(TensorRole::kAttentionOutput)->name, "blk.0.attn_output.weight");
  EXPECT_EQ(attention.get(TensorRole::kQueryBias), nullptr);
  EXPECT_EQ(attention.get(TensorRole::kFfnUp), nullptr);
  EXPECT_EQ(ffn.get(TensorRole::kFfnDown)->name, "blk.0.ffn_down.weight");
  EXPECT_EQ(model.globals().get(TensorRole::kOutput)->name, "output.weight");
  uint64_t bytes = 0;
  for (const TensorInfo& tensor : model.gguf().tensors()) {
    bytes += tensor.bytes;
  }
  EXPECT_EQ(attention.file_bytes + ffn.file_bytes + model.globals().file_bytes, bytes);
}

TEST(Model, TakesOptionalTensors) {
  GgufBytes file = TinyLlama();
  file.Tensor("blk.0.attn_q.bias").ne = {8};
  file.Tensor("blk.0.attn_k.bias").ne = {4};
  file.Tensor("blk.0.attn_v.bias").ne = {4};
  file.Tensor("blk.0.attn_output.bias").ne = {8};
  file.Tensor("blk.0.ffn_gate.bias").ne = {16};
  file.Tensor("blk.0.ffn_up.bias").ne = {16};
  file.Tensor("blk.0.ffn_down.bias").ne = {8};
  file.Tensor("rope_freqs.weight").ne = {2};
  file.RemoveTensor("output.weight");
  const auto loaded = Load(file);
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  const Model& model = **loaded;
  EXPECT_NE(model.block(BlockId::Attention(0)).get(TensorRole::kKeyBias), nullptr);
  EXPECT_NE(model.block(BlockId::Ffn(0)).get(TensorRole::kFfnGateBias), nullptr);
  EXPECT_NE(model.globals().get(TensorRole::kRopeFrequencyFactors), nullptr);
  EXPECT_EQ(model.globals().get(TensorRole::kOutput), nullptr);
}

TEST(Model, TakesQuantisedMatrices) {
  GgufBytes file = TinyLlama();
  file.Set("llama.feed_forward_length", U32(32));
  for (const char* name : {"blk.0.ffn_gate.weight", "blk.0.ffn_up.weight"}) {
    file.Tensor(name).ne = {8, 32};
  }
  file.Tensor("blk.0.ffn_down.weight").ne = {32, 8};
  for (const ggml_type type : {GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0, GGML_TYPE_IQ4_NL}) {
    file.Tensor("blk.0.ffn_down.weight").type = type;
    EXPECT_TRUE(Load(file).ok()) << ggml_type_name(type);
  }
}

TEST(Model, RefusesWhatIsNoModel) {
  struct Case {
    const char* what;
    std::function<void(GgufBytes&)> spoil;
    std::vector<std::string> parts;
  };
  const Case cases[] = {
      {"no architecture", [](auto& f) { f.Remove("general.architecture"); }, {"general.architecture", "found none"}},
      {"architecture of a number", [](auto& f) { f.Set("general.architecture", U32(1)); }, {"expected a string"}},
      {"another architecture",
       [](auto& f) { f.Set("general.architecture", Str("mamba")); },
       {"expected one of llama, qwen2, qwen3", "'mamba'"}},
      {"missing tensor", [](auto& f) { f.RemoveTensor("blk.0.ffn_up.weight"); }, {"'blk.0.ffn_up.weight'", "none"}},
      {"missing layer", [](auto& f) { f.Set("llama.block_count", U32(2)); }, {"'blk.1.attn_norm.weight'"}},
      {"a layer too many",
       [](auto& f) { f.Tensor("blk.1.attn_norm.weight").ne = {8}; },
       {"'blk.1.attn_norm.weight'", "without a place"}},
      {"unknown tensor",
       [](auto& f) { f.Tensor("blk.0.attn_sinks.weight").ne = {2}; },
       {"'blk.0.attn_sinks.weight'", "without a place"}},
      {"fused qkv",
       [](auto& f) {
         f.Tensor("blk.0.attn_qkv.weight").ne = {8, 16};
       },
       {"'blk.0.attn_qkv.weight'"}},
      {"wrong shape",
       [](auto& f) {
         f.Tensor("blk.0.attn_k.weight").ne = {8, 8};
       },
       {"'blk.0.attn_k.weight'", "expected shape [8, 4], found [8, 8]"}},
      {"transposed",
       [](auto& f) {
         f.Tensor("blk.0.ffn_down.weight").ne = {8, 16};
       },
       {"[16, 8], found [8, 16]"}},
      {"third dimension",
       [](auto& f) {
         f.Tensor("blk.0.attn_k.weight").ne = {8, 4, 2};
       },
       {"found [8, 4, 2]"}},
      {"vocabulary of another size",
       [](auto& f) {
         f.Set("tokenizer.ggml.tokens", Strings({"a", "b", "c"}));
       },
       {"'token_embd.weight'", "expected shape [8, 3], found [8, 4]"}},
      {"F16 norm",
       [](auto& f) { f.Tensor("blk.0.ffn_norm.weight").type = GGML_TYPE_F16; },
       {"'blk.0.ffn_norm.weight'", "expected type f32, found f16"}},
      {"integer matrix", [](auto& f) { f.Tensor("blk.0.attn_q.weight").type = GGML_TYPE_I32; }, {"found i32"}},
      {"double matrix", [](auto& f) { f.Tensor("blk.0.attn_q.weight").type = GGML_TYPE_F64; }, {"found f64"}},
      {"bad vocabulary", [](auto& f) { f.Set("tokenizer.ggml.scores", Floats({1})); }, {"'tokenizer.ggml.scores'"}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    GgufBytes file = TinyLlama();
    c.spoil(file);
    const auto result = Load(file);
    ASSERT_FALSE(result.ok());
    const std::string message = result.status().message();
    EXPECT_EQ(message.rfind("<memory>: ", 0), 0u) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    for (const std::string& part : c.parts) {
      EXPECT_NE(message.find(part), std::string::npos) << "expected: " << part << "\nmessage:  " << message;
    }
  }
}

TEST(Model, NamesItself) {
  GgufBytes file = TinyLlama();
  EXPECT_EQ((*Load(file))->display_name(), "tiny");
  file.Set("general.name", Str("red\x1b[31m\nmodel"));
  EXPECT_EQ((*Load(file))->display_name(), "red?[31m?model");
  file.Remove("general.name");
  EXPECT_EQ((*Load(file))->display_name(), "<memory>");
}

TEST(Model, NamesItsQuantisation) {
  GgufBytes file = TinyLlama();
  EXPECT_EQ((*Load(file))->quantization(), "F32");
  file.Set("general.file_type", U32(15));
  EXPECT_EQ((*Load(file))->quantization(), "Q4_K_M");
  file.Set("general.file_type", U32(999));  // unknown: the commonest tensor type
  EXPECT_EQ((*Load(file))->quantization(), "F32");
  file.Remove("general.file_type");
  for (const char* name : {"token_embd.weight", "output.weight", "blk.0.attn_q.weight", "blk.0.attn_k.weight",
                           "blk.0.attn_v.weight", "blk.0.attn_output.weight", "blk.0.ffn_gate.weight"}) {
    file.Tensor(name).type = GGML_TYPE_BF16;
  }
  EXPECT_EQ((*Load(file))->quantization(), "BF16");
}

}  // namespace
}  // namespace espalier
