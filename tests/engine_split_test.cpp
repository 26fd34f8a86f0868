// Models in several files, and files of GGUF version 2: the same bits as from one file of version 3, and as libllama's.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "base/file.h"
#include "support/engines.h"
#include "support/gguf_bytes.h"
#include "support/models.h"
#include "support/peer.h"
#include "support/small_llama.h"
#include "support/split_model.h"
#include "text/libllama_reference.h"
#include "text/quantize.h"
#include "text/tokenizer.h"

namespace espalier::test {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMostBytes = uint64_t{1} << 30;

class EngineSplit : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(ScratchFolder()) /
              (std::string("split-") + testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  fs::path folder_;
};

// Logits of a prompt and of tokens one by one behind it, computed anew.
std::vector<float> LogitsOf(Engine& engine, std::span<const int32_t> tokens, size_t prompt) {
  engine.RemoveSequence(0);
  std::vector<float> logits = DecodeAll(engine, 0, tokens.first(prompt));
  for (size_t at = prompt; at < tokens.size(); ++at) {
    const auto row = DecodeAll(engine, 0, tokens.subspan(at, 1));
    logits.insert(logits.end(), row.begin(), row.end());
  }
  return logits;
}

std::vector<float> LogitsOfLibllama(const std::string& path, std::span<const int32_t> tokens, size_t prompt) {
  LibllamaOptions options;
  options.n_ctx = 512;
  options.n_threads = 1;
  const auto reference = LibllamaReference::Open(path, options);
  EXPECT_TRUE(reference.ok()) << reference.status().message();
  std::vector<float> logits;
  for (size_t at = 0; at < tokens.size();) {
    const auto some = tokens.subspan(at, at == 0 ? prompt : 1);
    const auto rows = (*reference)->Decode(some, /*all_logits=*/true);
    EXPECT_TRUE(rows.ok()) << rows.status().message();
    logits.insert(logits.end(), rows->begin(), rows->end());
    at += some.size();
  }
  return logits;
}

bool SameBits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

TEST_F(EngineSplit, OurPartsAreThoseOfLlamaGgufSplit) {
  for (const bool no_tensor_first : {false, true}) {
    for (const size_t most : {size_t{1}, size_t{40}, size_t{1000}}) {
      SCOPED_TRACE(fmt::format("{} tensors a file, {}", most, no_tensor_first));
      const auto ours = SplitModel(TwinPath(), Path("ours"), {most, no_tensor_first});
      const auto said = RunPeer("llama-gguf-split", fmt::format("--split --split-max-tensors {} {} '{}' '{}' 2>&1",
                                                                most, no_tensor_first ? "--no-tensor-first-split" : "",
                                                                TwinPath(), Path("theirs")));
      if (!said) {
        GTEST_SKIP() << kNoPeer;
      }
      for (size_t no = 0; no < ours.size(); ++no) {
        const std::string theirs = SplitPath(Path("theirs"), static_cast<int>(no), static_cast<int>(ours.size()));
        ASSERT_TRUE(fs::exists(theirs)) << theirs << "\n" << *said;
        EXPECT_TRUE(*ReadWholeFile(ours[no], kMostBytes) == *ReadWholeFile(theirs, kMostBytes)) << theirs;
      }
      EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 2 * static_cast<std::ptrdiff_t>(ours.size()));
      for (const auto& file : fs::directory_iterator(folder_)) {
        fs::remove(file);
      }
    }
  }
}

TEST_F(EngineSplit, LogitsOfPartsAreThoseOfTheWholeAndOfLibllama) {
  const auto whole = OpenOrFail(ReferencePath());
  const auto tokens = SomeTokens(40, whole->hparams().n_vocab);
  const auto engine = OpenEngine(whole, ExactOptions(), Plan::Dense(whole->n_layer()));
  const auto dense = LogitsOf(*engine, tokens, 33);
  const Plan pruned = *Plan::ParseDrop("a3,f3,f7,a15", whole->n_layer());
  ASSERT_TRUE(engine->Apply(pruned).ok());
  const auto without = LogitsOf(*engine, tokens, 33);
  ASSERT_FALSE(SameBits(dense, without));
  for (const bool no_tensor_first : {false, true}) {
    const auto paths = SplitModel(ReferencePath(), Path("m"), {40, no_tensor_first});
    ASSERT_EQ(paths.size(), no_tensor_first ? 5u : 4u);
    const auto model = OpenOrFail(paths[0]);
    ASSERT_NE(model, nullptr);
    EngineOptions options = ExactOptions();
    options.drop_page_cache = no_tensor_first;
    const auto in_parts = OpenEngine(model, options, Plan::Dense(model->n_layer()));
    EXPECT_TRUE(SameBits(LogitsOf(*in_parts, tokens, 33), dense));
    // Blocks that go and come back are read from their part again.
    ASSERT_TRUE(in_parts->Apply(pruned).ok());
    EXPECT_TRUE(SameBits(LogitsOf(*in_parts, tokens, 33), without));
    ASSERT_TRUE(in_parts->Apply(Plan::Dense(model->n_layer())).ok());
    EXPECT_TRUE(SameBits(LogitsOf(*in_parts, tokens, 33), dense));
    EXPECT_TRUE(SameBits(LogitsOfLibllama(paths[0], tokens, 33), dense));
    EXPECT_LE(in_parts->reclaimable_bytes(), model->gguf().source().size() + paths.size() * 4096);
    if (!no_tensor_first) {
      EXPECT_GE(in_parts->reclaimable_bytes(), model->gguf().source().size()) << "all parts were just written and read";
    }
  }
}

TEST_F(EngineSplit, PartsOfLlamaGgufSplitRunAsTheWhole) {
  const auto said = RunPeer("llama-gguf-split",
                            fmt::format("--split --split-max-size 8M '{}' '{}' 2>&1", ReferencePath(), Path("m")));
  if (!said) {
    GTEST_SKIP() << kNoPeer;
  }
  const auto n_parts = std::distance(fs::directory_iterator(folder_), {});
  EXPECT_GT(n_parts, 2);
  const auto whole = OpenOrFail(ReferencePath());
  const auto model = OpenOrFail(SplitPath(Path("m"), 0, static_cast<int>(n_parts)));
  ASSERT_NE(model, nullptr);
  const auto tokens = SomeTokens(24, whole->hparams().n_vocab);
  const auto expected = LogitsOf(*OpenEngine(whole, ExactOptions(), Plan::Dense(whole->n_layer())), tokens, 20);
  const auto found = LogitsOf(*OpenEngine(model, ExactOptions(), Plan::Dense(model->n_layer())), tokens, 20);
  EXPECT_TRUE(SameBits(expected, found));
  // And what the tool joins again is one file for us.
  ASSERT_TRUE(RunPeer("llama-gguf-split", fmt::format("--merge '{}' '{}' 2>&1", model->path(), Path("merged.gguf"))));
  const auto merged = OpenOrFail(Path("merged.gguf"));
  ASSERT_NE(merged, nullptr);
  EXPECT_EQ(merged->gguf().paths().size(), 1u);
}

TEST_F(EngineSplit, TheTokenizerFindsTheParts) {
  const auto paths = SplitModel(TwinPath(), Path("m"), {.most_tensors = 20});
  const auto whole = Tokenizer::Open(*OpenOrFail(TwinPath()));
  const auto parts = Tokenizer::Open(*OpenOrFail(paths[0]));
  ASSERT_TRUE(whole.ok());
  ASSERT_TRUE(parts.ok()) << parts.status().message();
  const std::string text = "It was the best of times, it was the worst of times.";
  EXPECT_EQ(*(*whole)->Encode(text, true, true), *(*parts)->Encode(text, true, true));
}

TEST_F(EngineSplit, AQuantisedModelIsOneFileAgain) {
  const std::string source = RandomModel("three-layers-F16", ThreeLayers("F16"));
  const auto paths = SplitModel(source, Path("m"), {.most_tensors = 5});
  ASSERT_TRUE(QuantizeModel(source, Path("of-whole.gguf"), "Q8_0").ok());
  const Status made = QuantizeModel(paths[0], Path("of-parts.gguf"), "Q8_0");
  ASSERT_TRUE(made.ok()) << made.message();
  EXPECT_TRUE(*ReadWholeFile(Path("of-whole.gguf"), kMostBytes) == *ReadWholeFile(Path("of-parts.gguf"), kMostBytes));
}

TEST_F(EngineSplit, Version2IsComputedAsVersion3AndAsLibllamaDoes) {
  GgufBytes file = TwoLayerLlama();
  ASSERT_TRUE(WriteWholeFile(Path("v3.gguf"), WithRandomData(file)).ok());
  file.version = 2;
  ASSERT_TRUE(WriteWholeFile(Path("v2.gguf"), WithRandomData(file)).ok());
  const auto second = OpenOrFail(Path("v2.gguf"));
  const auto third = OpenOrFail(Path("v3.gguf"));
  ASSERT_EQ(second->gguf().version(), 2u);
  const auto tokens = SomeTokens(30, second->hparams().n_vocab);
  EngineOptions options = ExactOptions();
  options.n_ctx = 512;
  const auto logits = LogitsOf(*OpenEngine(second, options, Plan::Dense(2)), tokens, 25);
  EXPECT_TRUE(SameBits(logits, LogitsOf(*OpenEngine(third, options, Plan::Dense(2)), tokens, 25)));
  EXPECT_TRUE(SameBits(logits, LogitsOfLibllama(Path("v2.gguf"), tokens, 25)));
}

}  // namespace
}  // namespace espalier::test
