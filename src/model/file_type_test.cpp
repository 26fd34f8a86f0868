#include "model/file_type.h"

#include <gtest/gtest.h>

#include <vector>

namespace espalier {
namespace {

HyperParameters Shape(int n_layer, int n_embd, int n_head, int n_head_kv, bool tied) {
  HyperParameters h;
  h.n_layer = n_layer;
  h.n_embd = n_embd;
  h.n_head = n_head;
  h.n_head_kv = n_head_kv;
  h.tied_output = tied;
  return h;
}

// Layers whose matrix of `role` has `type`.
std::vector<int> LayersOf(const char* name, const HyperParameters& h, TensorRole role, ggml_type type) {
  std::vector<int> layers;
  for (int il = 0; il < h.n_layer; ++il) {
    if (MatrixType(**ParseFileType(name), h, role, il, 256) == type) {
      layers.push_back(il);
    }
  }
  return layers;
}

TEST(FileType, ParsesNamesInAnyCase) {
  EXPECT_EQ((*ParseFileType("q4_k_m"))->number, 15);
  EXPECT_STREQ((*ParseFileType("f16"))->name, "F16");
  EXPECT_EQ((*ParseFileType("F32"))->base, GGML_TYPE_F32);
  for (const char* name : {"", "Q4", "Q4_K_M ", "Q9_0", "IQ2_XXS", "Q4_K_M\n"}) {
    const auto result = ParseFileType(name);
    ASSERT_FALSE(result.ok()) << name;
    EXPECT_EQ(result.status().code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(result.status().message().find("Q4_K_M"), std::string::npos) << result.status().message();
  }
}

TEST(FileType, FindsNamesByNumber) {
  EXPECT_STREQ(FindFileType(15)->name, "Q4_K_M");
  EXPECT_STREQ(FindFileType(0)->name, "F32");
  EXPECT_STREQ(FindFileType(31)->name, "IQ1_M");
  EXPECT_EQ(FindFileType(4), nullptr);
  EXPECT_EQ(FindFileType(-1), nullptr);
}

// The lists are what llama-quantize wrote for a model of 16 layers.
TEST(FileType, MixesAsLlamaQuantizeDoes) {
  const HyperParameters h = Shape(16, 256, 8, 2, false);
  const std::vector<int> more = {0, 1, 4, 7, 10, 13, 14, 15};
  EXPECT_EQ(LayersOf("Q4_K_M", h, TensorRole::kValue, GGML_TYPE_Q6_K), more);
  EXPECT_EQ(LayersOf("Q4_K_M", h, TensorRole::kFfnDown, GGML_TYPE_Q6_K), more);
  EXPECT_EQ(LayersOf("Q5_K_M", h, TensorRole::kFfnDown, GGML_TYPE_Q6_K), more);
  EXPECT_EQ(LayersOf("Q4_K_M", h, TensorRole::kKey, GGML_TYPE_Q4_K).size(), 16u);
  EXPECT_EQ(LayersOf("Q4_K_S", h, TensorRole::kFfnDown, GGML_TYPE_Q5_K), (std::vector<int>{0, 1}));
  EXPECT_EQ(LayersOf("Q4_K_S", h, TensorRole::kValue, GGML_TYPE_Q5_K), (std::vector<int>{0, 1, 2, 3}));
  EXPECT_EQ(LayersOf("Q3_K_M", h, TensorRole::kFfnDown, GGML_TYPE_Q5_K), (std::vector<int>{0}));
  EXPECT_EQ(LayersOf("Q3_K_M", h, TensorRole::kFfnDown, GGML_TYPE_Q4_K).size(), 15u);
  EXPECT_EQ(LayersOf("Q3_K_M", h, TensorRole::kValue, GGML_TYPE_Q5_K), (std::vector<int>{0, 1}));
  EXPECT_EQ(LayersOf("Q3_K_L", h, TensorRole::kAttentionOutput, GGML_TYPE_Q5_K).size(), 16u);
  EXPECT_EQ(LayersOf("Q2_K", h, TensorRole::kValue, GGML_TYPE_Q4_K).size(), 16u);
  EXPECT_EQ(LayersOf("Q2_K", Shape(16, 256, 8, 4, false), TensorRole::kValue, GGML_TYPE_Q3_K).size(), 16u);
  EXPECT_EQ(LayersOf("Q8_0", h, TensorRole::kFfnDown, GGML_TYPE_Q8_0).size(), 16u);
}

TEST(FileType, GivesTheHeadMoreBits) {
  const FileType& q4 = **ParseFileType("Q4_K_M");
  const FileType& q8 = **ParseFileType("Q8_0");
  const HyperParameters untied = Shape(4, 256, 4, 4, false);
  const HyperParameters tied = Shape(4, 256, 4, 4, true);
  EXPECT_EQ(MatrixType(q4, untied, TensorRole::kOutput, 0, 256), GGML_TYPE_Q6_K);
  EXPECT_EQ(MatrixType(q4, untied, TensorRole::kTokenEmbedding, 0, 256), GGML_TYPE_Q4_K);
  EXPECT_EQ(MatrixType(q4, tied, TensorRole::kTokenEmbedding, 0, 256), GGML_TYPE_Q6_K);
  EXPECT_EQ(MatrixType(q8, untied, TensorRole::kOutput, 0, 256), GGML_TYPE_Q8_0);
  EXPECT_EQ(MatrixType(**ParseFileType("F16"), untied, TensorRole::kOutput, 0, 256), GGML_TYPE_F16);
}

TEST(FileType, FallsBackWhereRowsDoNotFit) {
  const HyperParameters h = Shape(16, 288, 8, 8, false);
  const auto type = [&](const char* name, TensorRole role, int64_t row) {
    return MatrixType(**ParseFileType(name), h, role, 0, row);
  };
  EXPECT_EQ(type("Q4_K_M", TensorRole::kQuery, 288), GGML_TYPE_Q5_0);
  EXPECT_EQ(type("Q5_K_M", TensorRole::kQuery, 288), GGML_TYPE_Q5_1);
  EXPECT_EQ(type("Q6_K", TensorRole::kQuery, 288), GGML_TYPE_Q8_0);
  EXPECT_EQ(type("Q4_K_M", TensorRole::kValue, 288), GGML_TYPE_Q8_0);  // Q6_K in layer 0
  EXPECT_EQ(type("Q3_K_S", TensorRole::kQuery, 288), GGML_TYPE_Q4_0);
  EXPECT_EQ(type("Q2_K", TensorRole::kQuery, 288), GGML_TYPE_Q4_0);
  EXPECT_EQ(type("Q4_K_M", TensorRole::kOutput, 288), GGML_TYPE_Q8_0);
  EXPECT_EQ(type("Q4_K_M", TensorRole::kQuery, 100), GGML_TYPE_F16);
  EXPECT_EQ(type("Q8_0", TensorRole::kQuery, 100), GGML_TYPE_F16);
  EXPECT_EQ(type("Q4_0", TensorRole::kOutput, 100), GGML_TYPE_F16);
}

}  // namespace
}  // namespace espalier
