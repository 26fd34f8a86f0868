// Exported plans: stock libllama on the file that was written, against our engine on the source under the same plan.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <map>
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

size_t TopOf(std::span<const float> logits) {
  return static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// Of all tokens.
struct Comparison {
  double difference = 0;  // greatest, of any logit
  double kl = 0;          // mean
  double worst_kl = 0;
  int other_tops = 0;  // tokens of which another logit is the greatest
};

// Logits of all of the tokens, which follow those of the call before.
using Decoder = std::function<std::vector<float>(std::span<const int32_t>)>;

Decoder Ours(Engine& engine) {
  engine.RemoveSequence(0);
  return [&engine](std::span<const int32_t> tokens) { return DecodeAll(engine, 0, tokens); };
}

Decoder Theirs(LibllamaReference& reference) {
  return [&reference](std::span<const int32_t> tokens) {
    const auto logits = reference.Decode(tokens, /*all_logits=*/true);
    EXPECT_TRUE(logits.ok());
    return logits.ok() ? std::vector<float>(logits->begin(), logits->end()) : std::vector<float>();
  };
}

// Over a prompt and tokens one by one behind it.
Comparison Compare(const Decoder& ours, const Decoder& theirs, std::span<const int32_t> tokens, size_t prompt) {
  Comparison found;
  for (size_t at = 0; at < tokens.size();) {
    const auto some = tokens.subspan(at, at == 0 ? prompt : 1);
    const auto expected = theirs(some);
    const auto logits = ours(some);
    found.difference = std::max(found.difference, MaxDifference(expected, logits));
    const size_t n_vocab = logits.size() / some.size();
    for (size_t row = 0; row < logits.size() && expected.size() == logits.size(); row += n_vocab) {
      const auto a = std::span(logits).subspan(row, n_vocab);
      const auto b = std::span(expected).subspan(row, n_vocab);
      const double kl = KlOf(a, b);
      found.kl += kl / static_cast<double>(tokens.size());
      found.worst_kl = std::max(found.worst_kl, kl);
      found.other_tops += TopOf(a) != TopOf(b) ? 1 : 0;
    }
    at += some.size();
  }
  return found;
}

// The greatest difference of any logit.
double Difference(Engine& engine, LibllamaReference& theirs, std::span<const int32_t> tokens, size_t prompt) {
  return Compare(Ours(engine), Theirs(theirs), tokens, prompt).difference;
}

struct Source {
  std::string architecture;
  std::string type;
  bool tied = false;

  std::string name() const { return architecture + "_" + type + (tied ? "_tied" : ""); }
  friend void PrintTo(const Source& source, std::ostream* out) { *out << source.name(); }
};

// With what the architecture may have besides: Llama 3's rope, biases, heads wider than their share.
RandomModelOptions ShapeOf(const Source& source) {
  RandomModelOptions shape = ThreeLayers(source.type);
  shape.architecture = source.architecture;
  shape.tied_output = source.tied;
  shape.rope_freq_factors = source.architecture == "llama" && source.type == "F16";
  shape.biases = source.architecture == "qwen2";
  shape.head_dim = source.architecture == "qwen3" && source.tied ? 128 : 0;
  return shape;
}

std::shared_ptr<const Model> SmallModel(const Source& source) {
  return OpenOrFail(RandomModel("exported-" + source.name(), ShapeOf(source)));
}

// Of three layers.
bool Writable(const Source& source, const Plan& plan) {
  const auto layers = PairBlocks(plan);
  const bool complete = std::all_of(layers.begin(), layers.end(), [](const PrunedLayer& l) { return l.complete(); });
  // Q4_K_M has a v of Q6_K in the last layer.
  const bool one_type = source.type != "Q4_K_M" || !plan.kept(BlockId::Attention(2));
  return complete || source.architecture != "qwen3" || (source.tied && one_type);
}

class EveryExport : public testing::TestWithParam<Source> {};

TEST_P(EveryExport, LogitsInLibllamaAreOursUnderThePlan) {
  const Source& source = GetParam();
  const auto model = SmallModel(source);
  auto engine = OpenEngine(model, ExactOptions(), Plan::Dense(3));
  const auto tokens = SomeTokens(24, model->hparams().n_vocab);
  std::map<std::string, int> written;
  double reordered = 0;
  for (unsigned mask = 0; mask < 63; ++mask) {  // but for the plan without any block
    const Plan plan = WithoutMask(3, mask);
    SCOPED_TRACE(plan.ToText());
    const auto prepared = GgufExport::Prepare(model, plan);
    ASSERT_EQ(prepared.ok(), Writable(source, plan)) << prepared.status().message();
    if (!prepared.ok()) {
      ++written["none"];
      continue;
    }
    ++written[prepared->architecture()];
    const auto theirs = Exported(model, plan, ScratchFolder() + "/exported-" + source.name() + "-small.gguf");
    ASSERT_NE(theirs, nullptr);
    ASSERT_TRUE(engine->Apply(plan).ok());
    const Comparison found = Compare(Ours(*engine), Theirs(*theirs), tokens, 20);
    // Sums of q and k in another order. Attention in f16, and activations in 8 bits, make more of that: in a few places
    // a number falls on the other side of where it is rounded. Rewritten weights (repack) do more to a model of Q4_K_M.
    if (source.architecture == "qwen2" && prepared->architecture() == "deci" && plan.kept_attention() > 0) {
      ASSERT_LT(found.kl, source.type == "F16" ? 1e-5 : 1e-3);
      reordered = std::max(reordered, found.kl);
    } else {
      ASSERT_EQ(found.difference, 0.0) << prepared->architecture();
    }
  }
  RecordProperty("mean_kl_where_reordered", fmt::format("{:.3g}", reordered));
  EXPECT_EQ(written[source.architecture], 12);
  EXPECT_EQ(written["none"] > 0, source.architecture == "qwen3" && (!source.tied || source.type == "Q4_K_M"));
  EXPECT_EQ(written["none"] + written[source.architecture == "qwen3" ? "openelm" : "deci"], 51);
}

INSTANTIATE_TEST_SUITE_P(ThreeLayers, EveryExport,
                         testing::Values(Source{"llama", "F16"}, Source{"llama", "Q8_0"}, Source{"llama", "Q4_K_M"},
                                         Source{"qwen2", "F16"}, Source{"qwen2", "Q8_0"}, Source{"qwen2", "Q4_K_M"},
                                         Source{"qwen2", "F16", true}, Source{"qwen2", "Q8_0", true},
                                         Source{"qwen2", "Q4_K_M", true}, Source{"qwen3", "F16"},
                                         Source{"qwen3", "Q8_0"}, Source{"qwen3", "F16", true},
                                         Source{"qwen3", "Q8_0", true}, Source{"qwen3", "Q4_K_M", true}),
                         [](const auto& test) { return test.param.name(); });

// Where nothing is rounded to 16 or 8 bits, the order of rows of q and k hardly shows: the export, and the source with
// zeros in what is dropped, both in libllama.
TEST(Export, RowsInTheOrderOfNormRopeAreTheSameModel) {
  LibllamaOptions exact;
  exact.n_threads = 1;
  exact.flash_attention = false;
  exact.key_type = "f32";
  exact.value_type = "f32";
  double worst = 0;
  for (const Source& source : {Source{"qwen2", "F32"}, Source{"qwen2", "F32", true}}) {
    const auto model = SmallModel(source);
    const auto tokens = SomeTokens(24, model->hparams().n_vocab);
    for (unsigned mask = 1; mask < 63; ++mask) {
      const Plan plan = WithoutMask(3, mask);
      SCOPED_TRACE(source.name() + " " + plan.ToText());
      const std::string small = ScratchFolder() + "/exported-reordered.gguf";
      ASSERT_NE(Exported(model, plan, small), nullptr);
      const std::string zeroed = ScratchFolder() + "/exported-reordered-zeroed.gguf";
      RandomModelOptions shape = ShapeOf(source);
      shape.zero = plan.dropped();
      ASSERT_TRUE(GenerateRandomModel(shape, zeroed).ok());
      const auto theirs = LibllamaReference::Open(small, exact);
      const auto whole = LibllamaReference::Open(zeroed, exact);
      ASSERT_TRUE(theirs.ok() && whole.ok());
      const Comparison found = Compare(Theirs(**whole), Theirs(**theirs), tokens, 20);
      ASSERT_LT(found.worst_kl, 1e-10);
      ASSERT_EQ(found.other_tops, 0);
      worst = std::max(worst, found.worst_kl);
    }
  }
  RecordProperty("worst_kl", fmt::format("{:.3g}", worst));
}

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
    const auto prepared = GgufExport::Prepare(model, plan, options);
    if (!prepared.ok()) {  // a number all the same
      ASSERT_EQ(prepared.status().code(), ErrorCode::kUnsupported);
      ASSERT_GT(foretold, 0u);
      ASSERT_LE(foretold, 2 * model->gguf().source().size());
      continue;
    }
    const uint64_t exact = prepared->file_bytes();
    ASSERT_GE(foretold, exact) << plan.ToText();
    ASSERT_LE(foretold, exact + kGgufAlignment) << plan.ToText();
  }
}

TEST(Export, BytesAreForetoldWithoutMakingTheFile) {
  for (const Source& source : {Source{"llama", "F16"}, Source{"llama", "Q4_K_M"}, Source{"qwen2", "Q4_K_M"},
                               Source{"qwen3", "F16"}, Source{"qwen3", "F16", true}, Source{"qwen3", "Q4_K_M", true}}) {
    SCOPED_TRACE(source.name());
    const auto model = SmallModel(source);
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

class Means : public testing::TestWithParam<Source> {};

TEST_P(Means, OutputsBecomeBiases) {
  const auto model = SmallModel(GetParam());
  auto means = std::make_shared<BlockMeans>();
  means->n_embd = model->hparams().n_embd;
  for (int i = 0; i < model->n_block() * model->hparams().n_embd; ++i) {
    means->values.push_back(0.3F * std::sin(static_cast<float>(i)));
  }
  EngineOptions options = ExactOptions();
  options.means = means;
  auto engine = OpenEngine(model, options, Plan::Dense(3));
  const auto tokens = SomeTokens(24, model->hparams().n_vocab);
  const std::string path = ScratchFolder() + "/exported-means-" + GetParam().name() + ".gguf";
  double worst = 0;
  for (unsigned mask = 1; mask < 63; ++mask) {
    const Plan plan = WithoutMask(3, mask);
    SCOPED_TRACE(plan.ToText());
    const auto theirs = Exported(model, plan, path, {.means = means.get(), .provenance = {}});
    ASSERT_NE(theirs, nullptr);
    ASSERT_TRUE(engine->Apply(plan).ok());
    engine->RemoveSequence(0);
    // All rows on both sides: a batch of another shape goes through other kernels.
    const auto expected = theirs->Decode(tokens, /*all_logits=*/true);
    ASSERT_TRUE(expected.ok());
    const auto ours = DecodeAll(*engine, 0, tokens);
    const double kl = MeanKl(ours, *expected, model->hparams().n_vocab);
    EXPECT_LT(kl, GetParam().architecture == "llama" ? 1e-6 : 1e-5);  // as above
    worst = std::max(worst, kl);
    // Without the means it is another model.
    const auto without = Exported(model, plan, path);
    ASSERT_NE(without, nullptr);
    EXPECT_GT(MeanKl(ours, *without->Decode(tokens, true), model->hparams().n_vocab), 1e-4);
  }
  RecordProperty("worst_mean_kl", fmt::format("{:.3g}", worst));
}

INSTANTIATE_TEST_SUITE_P(Export, Means, testing::Values(Source{"llama", "F16"}, Source{"qwen2", "F16"}),
                         [](const auto& test) { return test.param.name(); });

TEST(Export, SaysWhatWasWritten) {
  const auto model = OpenOrFail(TwinPath());
  const std::string path = ScratchFolder() + "/exported-keys.gguf";
  const Plan plan = *Plan::ParseDrop("a0,f0,f3", model->n_layer());
  const auto prepared = GgufExport::Prepare(model, plan, {.means = nullptr, .provenance = {{"plan", plan.ToText()}}});
  ASSERT_TRUE(prepared.ok());
  EXPECT_EQ(prepared->architecture(), "deci");
  EXPECT_EQ(prepared->architecture_reason(), "layers differ (a3 without an FFN block)");
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

TEST(Export, SaysWhyTheArchitecture) {
  const auto reason = [](const Source& source, const std::string& dropped, const BlockMeans* means = nullptr) {
    const auto prepared =
        GgufExport::Prepare(SmallModel(source), *Plan::ParseDrop(dropped, 3), {.means = means, .provenance = {}});
    return prepared.ok() ? prepared->architecture() + ": " + prepared->architecture_reason()
                         : prepared.status().message();
  };
  EXPECT_EQ(reason({"llama", "F16"}, "f0,a1"), "llama: every layer has both halves");
  EXPECT_EQ(reason({"qwen2", "F16"}, "f0,a1"), "qwen2: every layer has both halves");
  EXPECT_EQ(reason({"qwen2", "F16"}, "a0"),
            "deci: layers differ (f0 without an attention block); rows of q and k are in the order of its rope");
  EXPECT_EQ(reason({"qwen3", "F16", true}, "f2"),
            "openelm: layers differ (a2 without an FFN block); q, k and v are one tensor there");
  const BlockMeans means = {.n_embd = 256, .values = std::vector<float>(6 * 256, 0.1F)};
  EXPECT_EQ(reason({"llama", "F16"}, "a1,f1", &means), "llama: every layer has both halves");
  EXPECT_EQ(reason({"qwen2", "F16"}, "a1,f1", &means),
            "deci: qwen2 has no biases for the means of dropped blocks; rows of q and k are in the order of its rope");
  EXPECT_EQ(reason({"qwen2", "F16"}, "a0,f0", &means),
            "deci: layers differ (means before all blocks); rows of q and k are in the order of its rope");
  // Means of no block ask for nothing.
  EXPECT_EQ(reason({"qwen3", "F16"}, "", &means), "qwen3: every layer has both halves");
}

// The plan is refused, with `parts` in the message; the same without the layer's other half is not.
void ExpectRefusal(const std::shared_ptr<const Model>& model, const std::string& dropped, const std::string& whole,
                   const std::vector<std::string>& parts) {
  const Status refused = GgufExport::Prepare(model, *Plan::ParseDrop(dropped, 3)).status();
  EXPECT_EQ(refused.code(), ErrorCode::kUnsupported);
  for (const std::string& part : parts) {
    EXPECT_NE(refused.message().find(part), std::string::npos) << "'" << part << "' in: " << refused.message();
  }
  const auto prepared = GgufExport::Prepare(model, *Plan::ParseDrop(whole, 3));
  ASSERT_TRUE(prepared.ok()) << prepared.status().message();
  EXPECT_EQ(prepared->architecture(), "qwen3");
}

TEST(Export, RefusesLayersThatDifferWhereLlamaCppHasNone) {
  ExpectRefusal(SmallModel({"qwen3", "F16"}), "a0,f0,a1", "a0,f0,a1,f1",
                {"'a0=0 f0=0 a1=0'", "f1 without an attention block", "'output.weight'", "drop whole layers"});
  ExpectRefusal(
      SmallModel({"qwen3", "Q4_K_M", true}), "f1,f2", "f1,f2,a1,a2",
      {"a1 without an FFN block", "'blk.2.attn_q.weight'", "q4_K, q4_K, q6_K", "drop whole layers", "Q8_0 or F16"});
  RandomModelOptions biased = ThreeLayers("F16");
  biased.architecture = "qwen3";
  biased.tied_output = true;
  biased.biases = true;
  ExpectRefusal(OpenOrFail(RandomModel("exported-qwen3-biased", biased)), "f0", "f0,a1",
                {"a0 without an FFN block", "'blk.0.attn_q.bias'", "drop whole layers"});
  const BlockMeans means = {.n_embd = 256, .values = std::vector<float>(6 * 256, 0.1F)};
  const Status refused = GgufExport::Prepare(SmallModel({"qwen3", "F16", true}), *Plan::ParseDrop("a1,f1", 3),
                                             {.means = &means, .provenance = {}})
                             .status();
  EXPECT_EQ(refused.code(), ErrorCode::kUnsupported);
  EXPECT_NE(refused.message().find("ablation zero"), std::string::npos) << refused.message();
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
