// Exported plans: stock libllama on the file that was written, against our engine on the source under the same plan.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "base/file.h"
#include "export/export_bytes.h"
#include "export/gguf_export.h"
#include "runtime/engine.h"
#include "support/engines.h"
#include "support/models.h"
#include "text/libllama_reference.h"

namespace espalier::test {
namespace {

Plan WithoutMask(int n_layer, unsigned mask) {
  Plan plan = Plan::Dense(n_layer);
  for (int b = 0; b < 2 * n_layer; ++b) {
    if ((mask >> b & 1) != 0) {
      plan.Drop({b});
    }
  }
  return plan;
}

// Writes the plan, and gives libllama's model of the file.
std::unique_ptr<LibllamaReference> Exported(const std::shared_ptr<const Model>& model, const Plan& plan,
                                            const std::string& path, const ExportOptions& options = {}) {
  const auto prepared = GgufExport::Prepare(model, plan, options);
  EXPECT_TRUE(prepared.ok()) << prepared.status().message();
  if (!prepared.ok()) {
    return nullptr;
  }
  const Status written = prepared->WriteTo(path);
  EXPECT_TRUE(written.ok()) << written.message();
  EXPECT_EQ(std::filesystem::file_size(path), prepared->file_bytes());
  LibllamaOptions theirs;
  theirs.n_threads = 1;
  auto reference = LibllamaReference::Open(path, theirs);
  EXPECT_TRUE(reference.ok()) << reference.status().message();
  return reference.ok() ? std::move(*reference) : nullptr;
}

// The greatest difference of any logit, over a prompt and tokens one by one behind it.
double Difference(Engine& engine, LibllamaReference& theirs, std::span<const int32_t> tokens, size_t prompt) {
  engine.RemoveSequence(0);
  double worst = 0;
  for (size_t at = 0; at < tokens.size();) {
    const auto some = tokens.subspan(at, at == 0 ? prompt : 1);
    const auto expected = theirs.Decode(some, /*all_logits=*/true);
    EXPECT_TRUE(expected.ok());
    worst = std::max(worst, MaxDifference(*expected, DecodeAll(engine, 0, some)));
    at += some.size();
  }
  return worst;
}

class EveryExport : public testing::TestWithParam<std::string> {};

TEST_P(EveryExport, LogitsInLibllamaAreBitIdenticalToOursUnderThePlan) {
  const std::string type = GetParam();
  RandomModelOptions shape = ThreeLayers(type);
  shape.rope_freq_factors = type == "F16";
  const auto model = OpenOrFail(RandomModel("three-layers-" + type, shape));
  auto engine = OpenEngine(model, ExactOptions(), Plan::Dense(3));
  const auto tokens = SomeTokens(24, model->hparams().n_vocab);
  int as_they_were = 0;
  int per_layer = 0;
  for (unsigned mask = 0; mask < 63; ++mask) {  // but for the plan without any block
    const Plan plan = WithoutMask(3, mask);
    SCOPED_TRACE(plan.ToText());
    const auto theirs = Exported(model, plan, ScratchFolder() + "/exported-" + type + ".gguf");
    ASSERT_NE(theirs, nullptr);
    ASSERT_TRUE(engine->Apply(plan).ok());
    ASSERT_EQ(Difference(*engine, *theirs, tokens, 20), 0.0);
    ++(GgufExport::Prepare(model, plan)->architecture() == "llama" ? as_they_were : per_layer);
  }
  EXPECT_GT(as_they_were, 5);
  EXPECT_GT(per_layer, 30);
}

INSTANTIATE_TEST_SUITE_P(ThreeLayers, EveryExport, testing::Values("F16", "Q8_0", "Q4_K_M"),
                         [](const auto& test) { return test.param; });

TEST(Export, TrainedModelsOfBothDepths) {
  for (const std::string& path : {TwinAt("Q4_K_M"), ReferencePath()}) {
    const auto model = OpenOrFail(path);
    const int last = model->n_layer() - 1;
    auto engine = OpenEngine(model, ExactOptions(), Plan::Dense(model->n_layer()));
    const auto tokens = SomeTokens(40, model->hparams().n_vocab);
    for (const std::string& dropped :
         {std::string("a0"), std::string("f0"), std::string("a0,f0"), "a" + std::to_string(last),
          "f" + std::to_string(last), "a" + std::to_string(last) + ",f" + std::to_string(last), std::string("a1,f2,a3"),
          std::string("f1,a2"), std::string("a0,a1,f1,a2")}) {
      SCOPED_TRACE(dropped);
      const Plan plan = *Plan::ParseDrop(dropped, model->n_layer());
      const auto theirs = Exported(model, plan, ScratchFolder() + "/exported-trained.gguf");
      ASSERT_NE(theirs, nullptr);
      ASSERT_TRUE(engine->Apply(plan).ok());
      ASSERT_EQ(Difference(*engine, *theirs, tokens, 33), 0.0);
    }
  }
}

// KL(ours || theirs) of one token, nats.
double KlOf(std::span<const float> ours, std::span<const float> theirs) {
  const auto log_sum = [](std::span<const float> logits) {
    const double top = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float logit : logits) {
      sum += std::exp(logit - top);
    }
    return top + std::log(sum);
  };
  const double a = log_sum(ours);
  const double b = log_sum(theirs);
  double kl = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    kl += std::exp(ours[i] - a) * ((ours[i] - a) - (theirs[i] - b));
  }
  return kl;
}

double MeanKl(std::span<const float> ours, std::span<const float> theirs, int n_vocab) {
  const auto row = static_cast<size_t>(n_vocab);
  double sum = 0;
  for (size_t at = 0; at < ours.size(); at += row) {
    sum += KlOf(ours.subspan(at, row), theirs.subspan(at, row));
  }
  return sum * static_cast<double>(row) / static_cast<double>(ours.size());
}

// Of every plan but the one without any block.
void ExpectBytesForetold(const std::shared_ptr<const Model>& model, const ExportOptions& options) {
  const auto bytes = ExportBytes::Create(model, options);
  ASSERT_TRUE(bytes.ok()) << bytes.status().message();
  const unsigned n_plan = 1U << model->n_block();
  for (unsigned mask = 0; mask + 1 < n_plan; ++mask) {
    const Plan plan = WithoutMask(model->n_layer(), mask);
    const uint64_t foretold = (*bytes)(plan);
    const uint64_t exact = GgufExport::Prepare(model, plan, options)->file_bytes();
    ASSERT_GE(foretold, exact) << plan.ToText();
    ASSERT_LE(foretold, exact + kGgufAlignment) << plan.ToText();
  }
}

TEST(Export, BytesAreForetoldWithoutMakingTheFile) {
  for (const char* type : {"F16", "Q4_K_M"}) {
    RandomModelOptions shape = ThreeLayers(type);
    shape.rope_freq_factors = std::string(type) == "F16";
    const auto model = OpenOrFail(RandomModel(std::string("three-layers-") + type, shape));
    BlockMeans means;
    means.n_embd = model->hparams().n_embd;
    means.values.assign(static_cast<size_t>(model->n_block() * means.n_embd), 0.1F);
    for (const BlockMeans* added : {static_cast<const BlockMeans*>(nullptr), static_cast<const BlockMeans*>(&means)}) {
      ExpectBytesForetold(model, {.means = added, .provenance = {{"plan", "one of them"}}});
    }
  }
  // More layers than have one digit.
  const auto reference = OpenOrFail(ReferencePath());
  const auto bytes = ExportBytes::Create(reference);
  ASSERT_TRUE(bytes.ok());
  for (const char* dropped : {"a0", "f0", "a3,f7,a12", "f15", "a1,f2,a3,f4,a5,f6,a7,f8,a9,f10,a11"}) {
    const Plan plan = *Plan::ParseDrop(dropped, reference->n_layer());
    const uint64_t exact = GgufExport::Prepare(reference, plan)->file_bytes();
    EXPECT_GE((*bytes)(plan), exact);
    EXPECT_LE((*bytes)(plan), exact + kGgufAlignment);
  }
}

TEST(Export, MeanOutputsBecomeBiases) {
  const auto model = OpenOrFail(RandomModel("three-layers-F16", [] {
    RandomModelOptions shape = ThreeLayers("F16");
    shape.rope_freq_factors = true;
    return shape;
  }()));
  auto means = std::make_shared<BlockMeans>();
  means->n_embd = model->hparams().n_embd;
  for (int i = 0; i < model->n_block() * model->hparams().n_embd; ++i) {
    means->values.push_back(0.3F * std::sin(static_cast<float>(i)));
  }
  EngineOptions options = ExactOptions();
  options.means = means;
  auto engine = OpenEngine(model, options, Plan::Dense(3));
  const auto tokens = SomeTokens(24, model->hparams().n_vocab);
  for (unsigned mask = 1; mask < 63; ++mask) {
    const Plan plan = WithoutMask(3, mask);
    SCOPED_TRACE(plan.ToText());
    const auto theirs =
        Exported(model, plan, ScratchFolder() + "/exported-means.gguf", {.means = means.get(), .provenance = {}});
    ASSERT_NE(theirs, nullptr);
    ASSERT_TRUE(engine->Apply(plan).ok());
    engine->RemoveSequence(0);
    // All rows on both sides: a batch of another shape goes through other kernels.
    const auto expected = theirs->Decode(tokens, /*all_logits=*/true);
    ASSERT_TRUE(expected.ok());
    const auto ours = DecodeAll(*engine, 0, tokens);
    EXPECT_LT(MeanKl(ours, *expected, model->hparams().n_vocab), 1e-6);
    // Without the means it is another model.
    const auto without = Exported(model, plan, ScratchFolder() + "/exported-means.gguf");
    ASSERT_NE(without, nullptr);
    EXPECT_GT(MeanKl(ours, *without->Decode(tokens, true), model->hparams().n_vocab), 1e-4);
  }
}

TEST(Export, SaysWhatWasWritten) {
  const auto model = OpenOrFail(TwinPath());
  const std::string path = ScratchFolder() + "/exported-keys.gguf";
  const Plan plan = *Plan::ParseDrop("a0,f0,f3", model->n_layer());
  const auto prepared = GgufExport::Prepare(model, plan, {.means = nullptr, .provenance = {{"plan", plan.ToText()}}});
  ASSERT_TRUE(prepared.ok());
  EXPECT_EQ(prepared->architecture(), "deci");
  EXPECT_EQ(prepared->n_layer(), 5);
  uint64_t last_done = 0;
  ASSERT_TRUE(prepared
                  ->WriteTo(path,
                            [&](uint64_t done, uint64_t total) {
                              EXPECT_GT(done, last_done);
                              EXPECT_LE(done, total);
                              last_done = done;
                            })
                  .ok());
  EXPECT_GT(last_done, 0u);
  const auto written = GgufFile::Open(path);
  ASSERT_TRUE(written.ok());
  EXPECT_EQ(*(*written)->String("espalier.plan"), "a0=0 f0=0 f3=0");
  EXPECT_EQ(*(*written)->Integer("deci.context_length", 0, 1 << 30), model->hparams().n_ctx_train);
  // Whatever the source says of its vocabulary is there, and nothing that names its own architecture.
  for (const GgufEntry& entry : model->gguf().entries()) {
    if (entry.key.starts_with("tokenizer.")) {
      ASSERT_NE((*written)->FindEntry(entry.key), nullptr) << entry.key;
    }
  }
  for (const GgufEntry& entry : (*written)->entries()) {
    EXPECT_FALSE(entry.key.starts_with("llama.")) << entry.key;
  }
}

TEST(Export, RefusesWhatCannotBeWritten) {
  const auto model = OpenOrFail(TwinPath());
  const auto code = [&](const Plan& plan) { return GgufExport::Prepare(model, plan).status().code(); };
  EXPECT_EQ(code(WithoutMask(6, 0xfff)), ErrorCode::kUnsupported);
  Plan width = Plan::Dense(6);
  width.set_keep(BlockId::Ffn(1), 0.5);
  EXPECT_EQ(code(width), ErrorCode::kUnsupported);
  const auto prepared = GgufExport::Prepare(model, *Plan::ParseDrop("a1", 6));
  ASSERT_TRUE(prepared.ok());
  EXPECT_EQ(prepared->WriteTo(TwinPath()).code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(prepared->WriteTo(ScratchFolder() + "/none/x.gguf").code(), ErrorCode::kIo);
  const Status full = prepared->WriteTo("/dev/full");
  EXPECT_FALSE(full.ok());
}

}  // namespace
}  // namespace espalier::test
