// Figures of quality on real models, against three witnesses: libllama's logits in this process (exact), stock
// llama-perplexity run by this test where ESPALIER_PEER_PREFIX names its prefix (to the digits it prints), and figures
// that it printed once (within what processors and builds differ by).
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <ostream>
#include <regex>
#include <string>
#include <vector>

#include "eval/kl.h"
#include "eval/perplexity.h"
#include "eval/plan_switch.h"
#include "eval/scoring.h"
#include "eval/window_batches.h"
#include "support/engines.h"
#include "support/models.h"
#include "support/paths.h"
#include "support/peer.h"
#include "text/libllama_reference.h"
#include "text/tokenizer.h"

namespace espalier::test {
namespace {

const std::string kExcerpt = DataPath("books-excerpt.txt");
constexpr int64_t kWindows = 12;

// llama-perplexity -m MODEL -f tests/data/books-excerpt.txt -c 512 --chunks 12 -t 1 (llama.cpp 4df29be, the quantised
// twins made by its llama-quantize). Builds for other processors differ by 1e-5 or so of the figure.
struct StockFigure {
  const char* type;  // of the twin; nullptr: the reference model, f16
  double perplexity;
  double error;
};
void PrintTo(const StockFigure& figure, std::ostream* out) {
  *out << (figure.type == nullptr ? "Reference" : figure.type);
}
constexpr std::array kStock = {StockFigure{nullptr, 40.2130, 2.03814}, StockFigure{"F16", 66.7011, 3.38890},
                               StockFigure{"Q8_0", 66.6936, 3.38818}, StockFigure{"Q4_0", 66.9982, 3.39843},
                               StockFigure{"Q4_K_M", 67.2381, 3.42199}};
constexpr double kBetweenBuilds = 3e-4;  // relative

std::string PathOf(const StockFigure& figure) { return figure.type == nullptr ? ReferencePath() : TwinAt(figure.type); }

Windows Cut(const Model& model, Protocol protocol, int64_t max_windows = kWindows) {
  auto tokenizer = Tokenizer::Open(model);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  const auto text = ReadWholeFile(kExcerpt, 1 << 24);
  EXPECT_TRUE(text.ok()) << text.status().message();
  WindowOptions options;
  options.protocol = protocol;
  options.max_windows = max_windows;
  auto windows = CutWindows(**tokenizer, model.hparams().n_ctx_train, "books-excerpt.txt", *text, options);
  EXPECT_TRUE(windows.ok()) << windows.status().message();
  return *windows;
}

// As users run it, but for the thread.
std::unique_ptr<Engine> DenseEngine(const std::string& path) {
  EngineOptions options;
  options.n_threads = 1;
  options.n_ctx = 4096;  // two plans of four windows
  const auto model = OpenOrFail(path);
  return OpenEngine(model, options, Plan::Dense(model->n_layer()));
}

// libllama as llama-perplexity sets it up: four streams of 512 cells.
std::unique_ptr<LibllamaReference> Oracle(const std::string& path) {
  LibllamaOptions options;
  options.n_ctx = 2048;
  options.n_sequences = 4;
  options.unified_kv = false;
  options.n_threads = 1;
  auto oracle = LibllamaReference::Open(path, options);
  EXPECT_TRUE(oracle.ok()) << oracle.status().message();
  return std::move(*oracle);
}

// Calls `row(place, logits)` for every wanted row of the windows, run by libllama in the same sub-batches.
template <class RowFunction>
void RunOracle(LibllamaReference& oracle, const Windows& windows, RowFunction row) {
  for (const WindowGroup& group : GroupWindows(windows)) {
    oracle.ClearMemory();
    for (const WindowBatch& batch : CutBatches(windows, group, 512, 0)) {
      std::vector<LibllamaToken> tokens;
      for (const BatchToken& token : batch.tokens) {
        tokens.push_back({token.token, token.sequence, token.want_logits});
      }
      const auto logits = oracle.Decode(tokens);
      ASSERT_TRUE(logits.ok()) << logits.status().message();
      const auto n_vocab = static_cast<size_t>(oracle.n_vocab());
      for (size_t i = 0; i < batch.rows.size(); ++i) {
        row(batch.rows[i], logits->subspan(i * n_vocab, n_vocab));
      }
    }
  }
}

// The mean nll of each window, by libllama.
std::vector<double> OracleNll(const std::string& path, const Windows& windows) {
  std::vector<Moments> nll(static_cast<size_t>(windows.count()));
  RunOracle(*Oracle(path), windows, [&](const RowPlace& place, std::span<const float> logits) {
    if (place.position + 1 < windows.window_tokens) {
      const int32_t target = windows.at(place.window)[static_cast<size_t>(place.position + 1)];
      nll[static_cast<size_t>(place.window)].Add(NegativeLogLikelihood(logits, target));
    }
  });
  std::vector<double> means;
  for (const Moments& window : nll) {
    means.push_back(window.mean());
  }
  return means;
}

class PerplexityOfModels : public testing::TestWithParam<StockFigure> {};

TEST_P(PerplexityOfModels, EqualsLibllamasInBothProtocols) {
  const std::string path = PathOf(GetParam());
  auto engine = DenseEngine(path);
  for (const Protocol protocol : {Protocol::kLlama, Protocol::kGptq}) {
    const Windows windows = Cut(engine->model(), protocol, 6);
    const auto result = MeasurePerplexity(engine.get(), windows);
    ASSERT_TRUE(result.ok()) << result.status().message();
    const auto expected = OracleNll(path, windows);
    ASSERT_EQ(result->window_nll.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(result->window_nll[i], expected[i], 1e-6) << ProtocolName(protocol) << " window " << i;
    }
  }
}

TEST_P(PerplexityOfModels, IsTheFigureThatStockLlamaPerplexityPrinted) {
  auto engine = DenseEngine(PathOf(GetParam()));
  const auto result = MeasurePerplexity(engine.get(), Cut(engine->model(), Protocol::kLlama));
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(result->subject.tokens_scored, kWindows * 255);
  EXPECT_NEAR(result->perplexity.value, GetParam().perplexity, kBetweenBuilds * GetParam().perplexity);
  EXPECT_NEAR(result->perplexity.error, GetParam().error, 10 * kBetweenBuilds * GetParam().error);
}

TEST_P(PerplexityOfModels, EqualsStockLlamaPerplexityToTheDigitsItPrints) {
  const std::string path = PathOf(GetParam());
  const auto output =
      RunPeer("llama-perplexity",
              "-m '" + path + "' -f '" + kExcerpt + "' -c 512 -t 1 --chunks " + std::to_string(kWindows) + " 2>&1",
              "Final estimate");
  if (!output) {
    GTEST_SKIP() << kNoPeer;
  }
  auto engine = DenseEngine(path);
  const auto result = MeasurePerplexity(engine.get(), Cut(engine->model(), Protocol::kLlama));
  ASSERT_TRUE(result.ok()) << result.status().message();
  // "[1]56.3305,[2]57.9057,...": the perplexity so far after each window.
  const std::regex running(R"(\[(\d+)\]([0-9.]+),)");
  int64_t seen = 0;
  double sum = 0;
  for (std::sregex_iterator it(output->begin(), output->end(), running), end; it != end; ++it, ++seen) {
    sum += result->window_nll[static_cast<size_t>(seen)];
    EXPECT_NEAR(std::exp(sum / static_cast<double>(seen + 1)), std::stod((*it)[2]), 0.5001e-4) << "window " << (*it)[1];
  }
  EXPECT_EQ(seen, kWindows) << *output;
  std::smatch final_estimate;
  ASSERT_TRUE(std::regex_search(*output, final_estimate, std::regex(R"(PPL = ([0-9.]+) \+/- ([0-9.]+))"))) << *output;
  EXPECT_NEAR(result->perplexity.value, std::stod(final_estimate[1]), 0.5001e-4);
  EXPECT_NEAR(result->perplexity.error, std::stod(final_estimate[2]), 0.5001e-5);
}

INSTANTIATE_TEST_SUITE_P(Models, PerplexityOfModels, testing::ValuesIn(kStock), [](const auto& test) {
  return test.param.type == nullptr ? std::string("Reference") : std::string("Twin_") + test.param.type;
});

// A file that goes with the test; the name is this process's own, since tests run side by side.
class ScratchFile {
 public:
  explicit ScratchFile(const std::string& name) : path_(fmt::format("{}/{}-{}", ScratchFolder(), getpid(), name)) {}
  ~ScratchFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Writes a copy of the twin in which the dropped blocks' last matrices are zero: what stock tools can run in place of a
// plan.
void WriteTwinWithZeroed(const Plan& plan, const std::string& path) {
  const auto model = OpenOrFail(TwinPath());
  std::filesystem::copy_file(TwinPath(), path);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  for (const BlockId block : plan.dropped()) {
    const TensorInfo* last =
        model->block(block).get(block.is_attention() ? TensorRole::kAttentionOutput : TensorRole::kFfnDown);
    ASSERT_NE(last, nullptr);
    file.seekp(static_cast<std::streamoff>(last->offset));
    file << std::string(last->bytes, '\0');
  }
  ASSERT_TRUE(file.good());
}

constexpr const char* kDropped = "a2,f3,a4";

TEST(KlOfModels, DenseAgainstDenseIsExactlyNothing) {
  auto engine = DenseEngine(TwinPath());
  for (const Protocol protocol : {Protocol::kLlama, Protocol::kGptq}) {
    const auto result = MeasureKl(engine.get(), Plan::Dense(6), Cut(engine->model(), protocol, 5));
    ASSERT_TRUE(result.ok()) << result.status().message();
    EXPECT_EQ(result->kl_max, 0);
    EXPECT_EQ(result->kl.value, 0);
    EXPECT_EQ(result->paper.value, 0);
    EXPECT_EQ(result->log_perplexity_ratio.value, 0);
    EXPECT_EQ(result->same_top_token.value, 1);
  }
}

TEST(KlOfModels, EqualsLibllamasOnZeroedWeights) {
  const Plan plan = *Plan::ParseDrop(kDropped, 6);
  auto engine = DenseEngine(TwinPath());
  const Windows windows = Cut(engine->model(), Protocol::kLlama, 4);
  const auto result = MeasureKl(engine.get(), plan, windows);
  ASSERT_TRUE(result.ok()) << result.status().message();
  std::vector<std::vector<float>> dense_rows;
  RunOracle(*Oracle(TwinPath()), windows, [&](const RowPlace&, std::span<const float> logits) {
    dense_rows.emplace_back(logits.begin(), logits.end());
  });
  const ScratchFile zeroed("zeroed.gguf");
  WriteTwinWithZeroed(plan, zeroed.path());
  Moments kl;
  size_t at = 0;
  RunOracle(*Oracle(zeroed.path()), windows, [&](const RowPlace& place, std::span<const float> logits) {
    const auto& dense = dense_rows[at++];
    if (place.position + 1 < windows.window_tokens) {
      kl.Add(CompareRows(dense, logits, 0).kl);
    }
  });
  EXPECT_EQ(kl.count(), result->subject.tokens_scored);
  EXPECT_GT(kl.mean(), 0.01);
  EXPECT_NEAR(result->kl.value, kl.mean(), 1e-6);
  EXPECT_NEAR(result->kl.error, kl.mean_error(), 1e-6);
}

// The figure behind "name:" in what llama-perplexity --kl-divergence prints.
double FigureIn(const std::string& output, const std::string& name) {
  std::smatch match;
  const bool found = std::regex_search(output, match, std::regex(name + R"( *: *(-?[0-9.]+))"));
  EXPECT_TRUE(found) << name << " in " << output;
  return found ? std::stod(match[1]) : NAN;
}

TEST(KlOfModels, AgreesWithStockLlamaPerplexity) {
  const Plan plan = *Plan::ParseDrop(kDropped, 6);
  const ScratchFile base("logits.bin"), zeroed("zeroed.gguf");
  WriteTwinWithZeroed(plan, zeroed.path());
  const std::string common = " -c 512 -t 1 --kl-divergence-base '" + base.path() + "'";
  const std::string chunks = " -f '" + std::string(kExcerpt) + "' --chunks " + std::to_string(kWindows);
  if (!RunPeer("llama-perplexity", "-m '" + TwinPath() + "'" + chunks + common + " 2>&1", "Final estimate")) {
    GTEST_SKIP() << kNoPeer;
  }
  const auto output =
      RunPeer("llama-perplexity", "-m '" + zeroed.path() + "'" + common + " --kl-divergence 2>&1", "Same top p:");
  auto engine = DenseEngine(TwinPath());
  const auto result = MeasureKl(engine.get(), plan, Cut(engine->model(), Protocol::kLlama));
  ASSERT_TRUE(result.ok()) << result.status().message();
  // The tool keeps dense logits in 16 bits and leaves out what is below e^-16: 1 % of slack where that matters.
  EXPECT_NEAR(result->kl.value, FigureIn(*output, "Mean    KLD"), 0.003 * result->kl.value);
  EXPECT_NEAR(result->kl_median, FigureIn(*output, "Median  KLD"), 0.01 * result->kl_median);
  EXPECT_NEAR(result->kl_p90, FigureIn(*output, "90.0%   KLD"), 0.01 * result->kl_p90);
  EXPECT_NEAR(result->kl_p99, FigureIn(*output, "99.0%   KLD"), 0.01 * result->kl_p99);
  EXPECT_NEAR(result->kl_p999, FigureIn(*output, "99.9%   KLD"), 0.01 * result->kl_p999);
  EXPECT_NEAR(result->kl_max, FigureIn(*output, "Maximum KLD"), 0.01 * result->kl_max);
  EXPECT_NEAR(result->perplexity_plan.value, FigureIn(*output, "Mean PPL\\(Q\\)"), 1e-3);
  EXPECT_NEAR(result->perplexity_dense.value, FigureIn(*output, "Mean PPL\\(base\\)"), 0.05);
  EXPECT_NEAR(result->log_perplexity_ratio.value, FigureIn(*output, "Mean ln\\(PPL\\(Q\\)/PPL\\(base\\)\\)"), 1e-3);
  EXPECT_NEAR(100 * result->delta_p.value, FigureIn(*output, "Mean    Δp"), 0.005);
  EXPECT_NEAR(100 * result->delta_p_rms.value, FigureIn(*output, "RMS Δp"), 0.005);
  EXPECT_NEAR(100 * result->same_top_token.value, FigureIn(*output, "Same top p"), 0.1);
}

TEST(PlanSwitchOfModels, BlocksComeAndGoInFlightAndReprefillIsExact) {
  auto engine = DenseEngine(TwinPath());
  const Plan plan = *Plan::ParseDrop(kDropped, 6);
  const auto before = engine->memory_in_use().total();
  const auto result = MeasurePlanSwitch(engine.get(), plan, Cut(engine->model(), Protocol::kGptq, 4), 256);
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(result->plan_to_dense_reprefilled.mean_nll.value, result->dense.mean_nll.value);
  EXPECT_EQ(result->plan_to_dense_reprefilled.excess_nll.value, 0);
  EXPECT_EQ(result->skipped_blocks, 2);  // a2 and a4
  EXPECT_GT(result->fresh_plan.mean_nll.value, result->dense.mean_nll.value);
  EXPECT_GT(result->plan_to_dense.excess_nll.value, 0);
  EXPECT_EQ(result->subject.tokens_scored, 4 * 255);
  EXPECT_EQ(result->to_plan.transitions, 4);
  EXPECT_GT(result->to_plan.released_bytes, 1e6);
  EXPECT_GT(result->to_dense.loaded_bytes, 1e6);
  EXPECT_TRUE(engine->plan().dense());
  EXPECT_EQ(engine->used_cells(), 0);
  EXPECT_EQ(engine->memory_in_use().total(), before);
}

}  // namespace
}  // namespace espalier::test
