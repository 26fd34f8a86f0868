#include "model/random_model.h"

#include <ggml.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <numeric>
#include <set>

#include "base/file.h"
#include "base/file_size_limit_for_test.h"
#include "model/model.h"

namespace espalier {
namespace {

class RandomModel : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("espalier-random-model-" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static RandomModelOptions Small() {
    RandomModelOptions options;
    options.n_layer = 2;
    options.n_embd = 256;
    options.n_ff = 256;
    options.n_head = 4;
    options.n_head_kv = 2;
    options.n_vocab = 300;
    return options;
  }

  std::string Path(const std::string& name) const { return (folder_ / (name + ".gguf")).string(); }

  std::shared_ptr<const Model> Generate(const RandomModelOptions& options, const std::string& name) {
    const auto summary = GenerateRandomModel(options, Path(name));
    EXPECT_TRUE(summary.ok()) << summary.status().message();
    EXPECT_EQ(summary->file_bytes, std::filesystem::file_size(Path(name)));
    const auto model = Model::Open(Path(name));
    EXPECT_TRUE(model.ok()) << model.status().message();
    return *model;
  }

  static std::string Data(const Model& model, const TensorInfo& tensor) {
    std::string bytes(tensor.bytes, '\0');
    EXPECT_TRUE(model.gguf().source().ReadAt(tensor.offset, std::as_writable_bytes(std::span(bytes))).ok());
    return bytes;
  }

  static std::vector<float> Floats(const Model& model, const std::string& name) {
    const TensorInfo* tensor = model.gguf().FindTensor(name);
    const std::string bytes = Data(model, *tensor);
    const int64_t n = tensor->ne[0] * tensor->ne[1];
    std::vector<float> values(static_cast<size_t>(n));
    if (tensor->type == GGML_TYPE_F32) {
      std::memcpy(values.data(), bytes.data(), bytes.size());
    } else {
      ggml_get_type_traits(tensor->type)->to_float(bytes.data(), values.data(), n);
    }
    return values;
  }

  static double Deviation(const std::vector<float>& values) {
    const double sum = std::inner_product(values.begin(), values.end(), values.begin(), 0.0);
    return std::sqrt(sum / static_cast<double>(values.size()));
  }

  std::filesystem::path folder_;
};

TEST_F(RandomModel, OpensInEveryShapeAndType) {
  for (const char* type : {"F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1",
                           "Q4_0", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K"}) {
    for (const bool tied : {false, true}) {
      SCOPED_TRACE(type);
      RandomModelOptions options = Small();
      options.type = type;
      options.tied_output = tied;
      options.rope_freq_factors = tied;
      const auto model = Generate(options, "model");
      EXPECT_EQ(model->quantization(), type);
      EXPECT_EQ(model->hparams().tied_output, tied);
      EXPECT_EQ(model->hparams().n_head_kv, 2);
      EXPECT_EQ(model->hparams().head_dim, 64);
      EXPECT_EQ(model->hparams().n_vocab, 300);
      EXPECT_EQ(model->globals().get(TensorRole::kOutput) == nullptr, tied);
      EXPECT_EQ(model->globals().get(TensorRole::kRopeFrequencyFactors) != nullptr, tied);
      EXPECT_EQ(model->display_name(), "random llama of 2 layers, width 256");
    }
  }
}

TEST_F(RandomModel, TakesAHeadSizeOfItsOwn) {
  RandomModelOptions options = Small();
  options.head_dim = 32;
  const auto model = Generate(options, "model");
  EXPECT_EQ(model->hparams().head_dim, 32);
  EXPECT_EQ(model->block(BlockId::Attention(0)).get(TensorRole::kQuery)->ne[1], 4 * 32);
}

TEST_F(RandomModel, CountsParametersAndBytes) {
  RandomModelOptions options = Small();
  const auto summary = GenerateRandomModel(options, Path("model"));
  ASSERT_TRUE(summary.ok());
  const uint64_t attention = 256 + 2 * 256 * 256 + 2 * 256 * 128;
  const uint64_t ffn = 256 + 3 * 256 * 256;
  EXPECT_EQ(summary->parameters, 2 * 300 * 256 + 256 + 2 * (attention + ffn));
}

TEST_F(RandomModel, SameBytesForAnyNumberOfThreads) {
  for (const char* type : {"F16", "Q4_K_M"}) {
    RandomModelOptions options = Small();
    options.type = type;
    options.n_ff = 2048;  // more than one chunk per matrix
    Generate(options, "one");
    options.n_threads = 3;
    Generate(options, "three");
    const auto one = ReadWholeFile(Path("one"), 1 << 30);
    const auto three = ReadWholeFile(Path("three"), 1 << 30);
    ASSERT_TRUE(one.ok() && three.ok());
    EXPECT_TRUE(*one == *three) << type;
  }
}

TEST_F(RandomModel, SeedChangesEveryMatrix) {
  RandomModelOptions options = Small();
  const auto first = Generate(options, "first");
  options.seed = 2;
  const auto second = Generate(options, "second");
  for (const TensorInfo& tensor : first->gguf().tensors()) {
    EXPECT_FALSE(Data(*first, tensor) == Data(*second, *second->gguf().FindTensor(tensor.name))) << tensor.name;
  }
}

TEST_F(RandomModel, ZeroChangesOnlyTheLastMatricesOfItsBlocks) {
  for (const char* type :
       {"F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_1", "Q5_0", "Q4_K_M", "Q4_1", "Q4_0", "Q3_K_M", "Q2_K"}) {
    SCOPED_TRACE(type);
    RandomModelOptions options = Small();
    options.type = type;
    const auto dense = Generate(options, "dense");
    options.zero = {BlockId::Attention(0), BlockId::Ffn(1)};
    const auto zeroed = Generate(options, "zeroed");
    const std::set<std::string> expected = {"blk.0.attn_output.weight", "blk.1.ffn_down.weight"};
    std::set<std::string> changed;
    for (const TensorInfo& tensor : dense->gguf().tensors()) {
      const TensorInfo* other = zeroed->gguf().FindTensor(tensor.name);
      ASSERT_NE(other, nullptr);
      ASSERT_EQ(other->type, tensor.type);
      if (Data(*dense, tensor) != Data(*zeroed, *other)) {
        changed.insert(tensor.name);
      }
    }
    EXPECT_EQ(changed, expected);
    for (const std::string& name : expected) {
      const auto values = Floats(*zeroed, name);
      EXPECT_TRUE(std::all_of(values.begin(), values.end(), [](float v) { return v == 0.0f; })) << name;
    }
  }
}

TEST_F(RandomModel, TypesStartFromTheSameWeights) {
  RandomModelOptions options = Small();
  options.type = "F32";
  const auto exact = Generate(options, "exact");
  // Error of a uniform quantiser of n bits over about 7 deviations, with room for the scales' own rounding.
  const std::pair<const char*, double> kinds[] = {{"F16", 0.0005},  {"BF16", 0.004}, {"Q8_0", 0.01}, {"Q6_K", 0.03},
                                                  {"Q4_K_M", 0.12}, {"Q4_0", 0.12},  {"Q2_K", 0.45}};
  for (const auto& [type, tolerance] : kinds) {
    options.type = type;
    const auto model = Generate(options, "model");
    for (const char* name : {"token_embd.weight", "output.weight", "blk.1.attn_k.weight", "blk.0.ffn_up.weight"}) {
      const auto expected = Floats(*exact, name);
      auto difference = Floats(*model, name);
      std::transform(difference.begin(), difference.end(), expected.begin(), difference.begin(), std::minus<>());
      EXPECT_LT(Deviation(difference), tolerance * Deviation(expected)) << type << " " << name;
    }
    EXPECT_EQ(Floats(*model, "blk.1.attn_norm.weight"), Floats(*exact, "blk.1.attn_norm.weight"));
  }
}

TEST_F(RandomModel, DrawsTheDeviationsItPromises) {
  RandomModelOptions options = Small();
  options.type = "F32";
  const auto model = Generate(options, "model");
  const auto near = [&](const char* name, double expected) {
    EXPECT_NEAR(Deviation(Floats(*model, name)) / expected, 1, 0.02) << name;
  };
  near("token_embd.weight", 1);
  near("output.weight", 2.5 / 16);
  near("blk.0.attn_q.weight", 1.5 / 16);
  near("blk.0.attn_output.weight", 4 / std::sqrt(4.0) / 16);
  near("blk.0.ffn_down.weight", 2 / std::sqrt(4.0) / 16);
  near("blk.0.ffn_norm.weight", std::sqrt(1.01));
}

// Llama 3.2 with 64 elements per head: short wavelengths stay, the longest are stretched 32-fold.
TEST_F(RandomModel, WritesRopeFactorsOfLlama3) {
  RandomModelOptions options = Small();
  options.rope_freq_factors = true;
  const auto model = Generate(options, "model");
  const auto factors = Floats(*model, "rope_freqs.weight");
  ASSERT_EQ(factors.size(), 32u);
  EXPECT_FLOAT_EQ(model->hparams().rope.freq_base, 500000.0f);
  EXPECT_EQ(factors.front(), 1.0f);
  EXPECT_EQ(factors[14], 1.0f);  // wavelength 1957 < 8192 / 4
  EXPECT_NEAR(factors[16], 3.292,
              0.005);             // wavelength 4443: (8192 / 4443 - 1) / 3 = 0.2813; 1 / (0.7187 / 32 + 0.2813)
  EXPECT_EQ(factors[18], 32.0f);  // wavelength 10089 > 8192
  EXPECT_EQ(factors.back(), 32.0f);
  EXPECT_TRUE(std::is_sorted(factors.begin(), factors.end()));
}

TEST_F(RandomModel, ReportsProgressUpToTheWholeFile) {
  RandomModelOptions options = Small();
  uint64_t last = 0;
  uint64_t total = 0;
  options.progress = [&](uint64_t done, uint64_t all) {
    EXPECT_GE(done, last);
    last = done;
    total = all;
  };
  Generate(options, "model");
  EXPECT_EQ(last, total);
  EXPECT_EQ(total, std::filesystem::file_size(Path("model")));
}

TEST_F(RandomModel, RefusesShapesThatAreNoModel) {
  const std::vector<std::pair<const char*, std::function<void(RandomModelOptions&)>>> cases = {
      {"layers: expected 1 to 512, found 0", [](auto& o) { o.n_layer = 0; }},
      {"layers: expected 1 to 512, found 513", [](auto& o) { o.n_layer = 513; }},
      {"embedding length: expected a multiple of the 4 heads, found 258", [](auto& o) { o.n_embd = 258; }},
      {"embedding length: expected 2 to 65536, found -1", [](auto& o) { o.n_embd = -1; }},
      {"feed-forward length: expected 2 to", [](auto& o) { o.n_ff = 0; }},
      {"heads: expected 1 to", [](auto& o) { o.n_head = 0; }},
      {"KV heads: expected a divisor of the 4 heads, found 3", [](auto& o) { o.n_head_kv = 3; }},
      {"head size: expected an even number, found 33", [](auto& o) { o.head_dim = 33; }},
      {"vocabulary: expected 260 to", [](auto& o) { o.n_vocab = 259; }},
      {"context: expected 1 to", [](auto& o) { o.n_ctx = 0; }},
      {"threads: expected 1 to", [](auto& o) { o.n_threads = 0; }},
      {"block of zeros: expected 0 to 3, found 4", [](auto& o) { o.zero = {BlockId::Attention(2)}; }},
      {"type 'Q5_9': expected one of F32", [](auto& o) { o.type = "Q5_9"; }},
      {"frequency factors: architecture qwen2 has none",
       [](auto& o) {
         o.architecture = "qwen2";
         o.rope_freq_factors = true;
       }},
      {"architecture: expected one of llama, qwen2, qwen3, found 'gpt9'", [](auto& o) { o.architecture = "gpt9"; }},
  };
  for (const auto& [expected, spoil] : cases) {
    RandomModelOptions options = Small();
    spoil(options);
    const auto result = GenerateRandomModel(options, Path("refused"));
    ASSERT_FALSE(result.ok()) << expected;
    EXPECT_NE(result.status().message().find(expected), std::string::npos) << result.status().message();
    EXPECT_FALSE(std::filesystem::exists(Path("refused")));
  }
}

TEST_F(RandomModel, LeavesNothingBehindWhereItCannotWrite) {
  const auto result = GenerateRandomModel(Small(), Path("missing/folder/model"));
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), ErrorCode::kIo);
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

// The size limit of the process stands in for a full disk: both make a write in the middle of the file fail.
TEST_F(RandomModel, KeepsTheOldFileWhenTheDiskIsFull) {
  ASSERT_TRUE(WriteWholeFile(Path("model"), "what was there before").ok());
  const auto result = [&] {
    const FileSizeLimit limit(1 << 19);
    return GenerateRandomModel(Small(), Path("model"));
  }();
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), ErrorCode::kIo);
  EXPECT_NE(result.status().message().find("writing failed after 524288 bytes"), std::string::npos)
      << result.status().message();
  EXPECT_EQ(*ReadWholeFile(Path("model"), 1000), "what was there before");
  const std::filesystem::directory_iterator files(folder_);
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

}  // namespace
}  // namespace espalier
