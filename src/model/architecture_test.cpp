#include "model/architecture.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "support/gguf_bytes.h"

namespace espalier {
namespace {

using namespace test;  // NOLINT: the vocabulary of these tests

Result<HyperParameters> Read(const GgufBytes& file) {
  const auto gguf = GgufFile::Parse(Source(file.Build()));
  EXPECT_TRUE(gguf.ok()) << gguf.status().message();
  if (!gguf.ok()) {
    return gguf.status();
  }
  return ReadHyperParameters(**gguf, **FindArchitecture("llama"));
}

HyperParameters With(const std::function<void(GgufBytes&)>& edit) {
  GgufBytes file = TinyLlama();
  edit(file);
  const auto h = Read(file);
  EXPECT_TRUE(h.ok()) << h.status().message();
  return h.ok() ? *h : HyperParameters{};
}

TEST(FindArchitecture, KnowsLlamaAndListsWhatThereIs) {
  EXPECT_STREQ((*FindArchitecture("llama"))->name, "llama");
  const auto unknown = FindArchitecture("mam\nba");
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.status().code(), ErrorCode::kUnsupported);
  EXPECT_EQ(unknown.status().message(), "architecture: expected one of llama, qwen2, qwen3, found 'mam?ba'");
}

TEST(Architecture, EveryRoleHasOneDescription) {
  const Architecture& llama = **FindArchitecture("llama");
  std::vector<int> uses(kTensorRoleCount, 0);
  for (const auto specs : {llama.attention, llama.ffn, llama.globals}) {
    for (const TensorSpec& spec : specs) {
      ++uses[static_cast<size_t>(spec.role)];
      EXPECT_GE(std::string_view(spec.shape).size(), 1u);
      EXPECT_LE(std::string_view(spec.shape).size(), 2u);
    }
  }
  for (const int n : uses) {
    EXPECT_LE(n, 1);
  }
  EXPECT_EQ(uses[static_cast<size_t>(TensorRole::kQueryNorm)], 0);
}

TEST(TensorShape, SpellsLettersOut) {
  HyperParameters h;
  h.n_embd = 10;
  h.n_ff = 20;
  h.n_head = 6;
  h.n_head_kv = 3;
  h.head_dim = 4;
  h.n_vocab = 50;
  h.rope.n_rot = 4;
  const auto shape = [&](const char* letters) { return TensorShape({TensorRole::kQuery, "x", letters, true}, h); };
  EXPECT_EQ(shape("EQ"), (std::array<int64_t, 4>{10, 24, 1, 1}));
  EXPECT_EQ(shape("EK"), (std::array<int64_t, 4>{10, 12, 1, 1}));
  EXPECT_EQ(shape("FE"), (std::array<int64_t, 4>{20, 10, 1, 1}));
  EXPECT_EQ(shape("V"), (std::array<int64_t, 4>{50, 1, 1, 1}));
  EXPECT_EQ(shape("DR"), (std::array<int64_t, 4>{4, 2, 1, 1}));
}

TEST(HyperParameters, ReadsWhatTheFileSays) {
  const HyperParameters h = With([](GgufBytes&) {});
  EXPECT_EQ(h.n_layer, 1);
  EXPECT_EQ(h.n_embd, 8);
  EXPECT_EQ(h.n_head, 2);
  EXPECT_EQ(h.n_head_kv, 1);
  EXPECT_EQ(h.head_dim, 4);
  EXPECT_EQ(h.n_ff, 16);
  EXPECT_EQ(h.n_vocab, 4);
  EXPECT_EQ(h.n_ctx_train, 64);
  EXPECT_EQ(h.rms_epsilon, 1e-5f);
  EXPECT_EQ(h.attention_scale, 0.5f);
  EXPECT_FALSE(h.tied_output);
  EXPECT_TRUE(With([](GgufBytes& f) { f.RemoveTensor("output.weight"); }).tied_output);
}

TEST(HyperParameters, FillsDefaultsAsLibllamaDoes) {
  const HyperParameters h = With([](GgufBytes& f) {
    f.Remove("llama.attention.head_count_kv");
    f.Remove("llama.rope.dimension_count");
  });
  EXPECT_EQ(h.n_head_kv, 2);
  EXPECT_EQ(h.rope.n_rot, 4);
  EXPECT_EQ(h.rope.freq_base, 10000.0f);
  EXPECT_EQ(h.rope.n_ctx_original, 64);
}

TEST(HyperParameters, TakesAHeadSizeOfItsOwn) {
  const HyperParameters h = With([](GgufBytes& f) {
    f.Set("llama.attention.key_length", U32(16));
    f.Set("llama.attention.value_length", U32(16));
    f.Set("llama.rope.dimension_count", U32(16));
  });
  EXPECT_EQ(h.head_dim, 16);
  EXPECT_EQ(h.attention_scale, 0.25f);
}

TEST(RopeParameters, NoScaling) {
  const RopeParameters rope = With([](GgufBytes&) {}).rope;
  EXPECT_EQ(rope.kind, RopeKind::kNorm);
  EXPECT_EQ(rope.freq_scale, 1.0f);
  EXPECT_EQ(rope.ext_factor, 0.0f);
  EXPECT_EQ(rope.attn_factor, 1.0f);
  EXPECT_EQ(rope.beta_fast, 32.0f);
  EXPECT_EQ(rope.beta_slow, 1.0f);
}

TEST(RopeParameters, LinearScalingUnderBothItsNames) {
  const auto scale = [](const char* key) { return With([=](GgufBytes& f) { f.Set(key, F32(4)); }).rope.freq_scale; };
  EXPECT_EQ(scale("llama.rope.scaling.factor"), 0.25f);
  EXPECT_EQ(scale("llama.rope.scale_linear"), 0.25f);
  const HyperParameters both = With([](GgufBytes& f) {
    f.Set("llama.rope.scale_linear", F32(8));
    f.Set("llama.rope.scaling.factor", F32(2));
  });
  EXPECT_EQ(both.rope.freq_scale, 0.5f);
}

TEST(RopeParameters, ScalingTypeNoneOverridesTheFactor) {
  const HyperParameters h = With([](GgufBytes& f) {
    f.Set("llama.rope.scaling.type", Str("none"));
    f.Set("llama.rope.scaling.factor", F32(4));
  });
  EXPECT_EQ(h.rope.freq_scale, 1.0f);
}

// ggml multiplies attention by 1 + 0.1 ln(4) = 1.1386 under YaRN, so libllama hands it (1 + 0.1 ln 4) / 1.1386 = 1.
TEST(RopeParameters, Yarn) {
  const HyperParameters h = With([](GgufBytes& f) {
    f.Set("llama.rope.scaling.type", Str("yarn"));
    f.Set("llama.rope.scaling.factor", F32(4));
    f.Set("llama.rope.scaling.original_context_length", U32(16));
  });
  EXPECT_EQ(h.rope.freq_scale, 0.25f);
  EXPECT_EQ(h.rope.ext_factor, 1.0f);
  EXPECT_FLOAT_EQ(h.rope.attn_factor, 1.0f);
  EXPECT_EQ(h.rope.n_ctx_original, 16);
  const HyperParameters shrunk = With([](GgufBytes& f) {
    f.Set("llama.rope.scaling.type", Str("yarn"));
    f.Set("llama.rope.scaling.factor", F32(0.5f));
    f.Set("llama.rope.scaling.attn_factor", F32(2));
  });
  EXPECT_FLOAT_EQ(shrunk.rope.attn_factor, 2 / (1 + 0.1f * std::log(0.5f)));
}

TEST(HyperParameters, RefusesWhatTheGraphWouldGetWrong) {
  struct Case {
    const char* key;
    RawValue value;
    const char* part;
    ErrorCode code = ErrorCode::kUnsupported;
  };
  const Case cases[] = {
      {"llama.expert_count", U32(8), "expected 0 (a dense model), found 8"},
      {"llama.attention.sliding_window", U32(32), "found 32"},
      {"llama.attention.max_alibi_bias", F32(8), "expected 0, found 8"},
      {"llama.attention.causal", Bool(0), "expected true, found false"},
      {"llama.attention.head_count", Numbers<uint32_t>(4, {2}), "one number for all layers, found an array"},
      {"llama.attention.head_count_kv", Numbers<uint32_t>(4, {1}), "one number for all layers, found an array"},
      {"llama.feed_forward_length", Numbers<uint32_t>(4, {16}), "one number for all layers, found an array"},
      {"llama.attention.value_length", U32(8), "expected 4, the length of keys, found 8"},
      {"llama.rope.dimension_count", U32(2), "expected 4, the head size, found 2"},
      {"llama.rope.scaling.type", Str("longrope"), "expected none, linear or yarn, found 'longrope'"},
      {"llama.rope.scaling.factor", F32(-2), "found -2"},
      {"llama.rope.freq_base", F32(0), "expected a positive number, found 0"},
      {"llama.attention.layer_norm_rms_epsilon", F32(-1), "expected 0 to 1, found -1"},
      {"llama.block_count", U32(0), "expected 1 to 512, found 0", ErrorCode::kCorrupt},
      {"llama.block_count", U32(513), "expected 1 to 512, found 513", ErrorCode::kCorrupt},
      {"llama.block_count", F32(1), "expected an integer", ErrorCode::kCorrupt},
      {"llama.embedding_length", U32(1u << 30), "found 1073741824", ErrorCode::kCorrupt},
      {"llama.attention.head_count", U32(0), "found 0", ErrorCode::kCorrupt},
      {"llama.attention.head_count", U32(8), "expected an even number", ErrorCode::kCorrupt},
      {"llama.attention.head_count", U32(16), "expected an even number", ErrorCode::kCorrupt},
      {"llama.attention.head_count_kv", U32(3), "divisor of the 2 heads, found 3", ErrorCode::kCorrupt},
      {"llama.attention.head_count_kv", U32(0), "found 0", ErrorCode::kCorrupt},
      {"llama.context_length", U64(uint64_t{1} << 40), "found 1099511627776", ErrorCode::kCorrupt},
      {"tokenizer.ggml.tokens", Str("a"), "found a single value", ErrorCode::kCorrupt},
      {"tokenizer.ggml.tokens", Ints({1}), "found an array of 1 elements", ErrorCode::kCorrupt},
      {"tokenizer.ggml.tokens", Strings({}), "1 to 16777216 strings", ErrorCode::kCorrupt},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.key);
    GgufBytes file = TinyLlama();
    file.Set(c.key, c.value);
    const auto result = Read(file);
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.status().code(), c.code) << result.status().message();
    EXPECT_NE(result.status().message().find(c.part), std::string::npos) << result.status().message();
    EXPECT_EQ(result.status().message().rfind("<memory>: ", 0), 0u) << result.status().message();
  }
}

TEST(HyperParameters, RefusesAMissingKey) {
  for (const char* key :
       {"llama.block_count", "llama.embedding_length", "llama.feed_forward_length", "llama.context_length",
        "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon", "tokenizer.ggml.tokens"}) {
    GgufBytes file = TinyLlama();
    file.Remove(key);
    const auto result = Read(file);
    ASSERT_FALSE(result.ok()) << key;
    EXPECT_NE(result.status().message().find(key), std::string::npos) << result.status().message();
    EXPECT_NE(result.status().message().find("found none"), std::string::npos) << result.status().message();
  }
}

// A window as wide as the context never cuts anything off.
TEST(HyperParameters, AcceptsAWindowAsWideAsTheContext) {
  With([](GgufBytes& f) { f.Set("llama.attention.sliding_window", U32(64)); });
}

}  // namespace
}  // namespace espalier
