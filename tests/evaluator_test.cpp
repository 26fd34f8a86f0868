// The evaluator against the engine's own KL measurement, and exact GSI against the naive loop, on real models.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <string>

#include "base/file.h"
#include "eval/dense_statistics.h"
#include "eval/kl.h"
#include "eval/plan_evaluator.h"
#include "eval/window_batches.h"
#include "importance/candidates.h"
#include "importance/exhaustive.h"
#include "importance/gsi.h"
#include "importance/rank.h"
#include "support/models.h"
#include "support/paths.h"
#include "text/tokenizer.h"

namespace espalier::test {
namespace {

EngineOptions OneThread(KvType kv) {
  EngineOptions options;
  options.n_threads = 1;
  options.key_type = kv;
  options.value_type = kv;
  return options;
}

Windows ExcerptWindows(const Model& model, int64_t window_tokens, int64_t count) {
  const auto tokenizer = Tokenizer::Open(model);
  EXPECT_TRUE(tokenizer.ok());
  const auto text = ReadWholeFile(DataPath("books-excerpt.txt"), 1 << 20);
  EXPECT_TRUE(text.ok());
  const auto windows = CutWindows(**tokenizer, model.hparams().n_ctx_train, "books-excerpt", *text,
                                  {.window_tokens = window_tokens, .max_windows = count});
  EXPECT_TRUE(windows.ok()) << windows.status().message();
  return *windows;
}

Windows RandomWindows(const Model& model, int64_t window_tokens, int64_t count) {
  Windows windows;
  windows.corpus = "random tokens";
  windows.window_tokens = window_tokens;
  windows.first_target = 1;
  windows.text_tokens = window_tokens * count;
  windows.tokens = SomeTokens(static_cast<size_t>(window_tokens * count), model.hparams().n_vocab);
  return windows;
}

std::unique_ptr<PlanEvaluator> OpenEvaluator(const std::shared_ptr<const Model>& model, const Windows& windows,
                                             const PlanEvaluatorOptions& options, ProfileStore* store = nullptr) {
  auto evaluator = PlanEvaluator::Create(model, windows, options, store);
  EXPECT_TRUE(evaluator.ok()) << evaluator.status().message();
  return evaluator.ok() ? *std::move(evaluator) : nullptr;
}

BlockMeans MeansOf(const std::shared_ptr<const Model>& model, const Windows& windows, EngineOptions engine) {
  engine.n_ubatch = static_cast<int>(windows.window_tokens);
  auto runner = BlockRunner::Create(model, engine);
  EXPECT_TRUE(runner.ok());
  auto statistics = MeasureDenseStatistics(runner->get(), windows);
  EXPECT_TRUE(statistics.ok());
  return statistics->means;
}

struct Case {
  const char* type;
  KvType kv;
  Ablation ablation;
};

class EvaluatorOnTwin : public testing::TestWithParam<Case> {
 protected:
  // With means of `windows`.
  static PlanEvaluatorOptions Options(const std::shared_ptr<const Model>& model, const Windows& windows) {
    PlanEvaluatorOptions options;
    options.engine = OneThread(GetParam().kv);
    options.ablation = GetParam().ablation;
    options.means = std::make_shared<BlockMeans>(MeansOf(model, windows, options.engine));
    return options;
  }
};

TEST_P(EvaluatorOnTwin, LossIsTheEnginesKl) {
  const auto model = OpenOrFail(TwinAt(GetParam().type));
  const Windows windows = ExcerptWindows(*model, 128, 4);
  const PlanEvaluatorOptions options = Options(model, windows);
  const auto evaluator = OpenEvaluator(model, windows, options);
  ASSERT_NE(evaluator, nullptr);

  EngineOptions engine_options = options.engine;
  engine_options.n_ctx = EvalWorkload(windows.protocol, windows.window_tokens, windows.count(), 2).kv_cells;
  engine_options.n_ubatch = 128;
  engine_options.means = options.ablation == Ablation::kMean ? options.means : nullptr;
  auto engine = Engine::Create(model, engine_options, Plan::Dense(model->n_layer()));
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  for (const char* drop : {"a3", "f3", "a5,f5", "a0,f1,a4", "a1,f1,a3,f3,a4,f4"}) {
    const Plan plan = *Plan::ParseDrop(drop, model->n_layer());
    const auto loss = evaluator->Measure(plan);
    const auto kl = MeasureKl(engine->get(), plan, windows);
    ASSERT_TRUE(loss.ok() && kl.ok());
    EXPECT_NEAR(*loss / kl->kl.value, 1, 2e-3) << drop;
    EXPECT_NEAR(evaluator->archive().MeanNll(*evaluator->archive().Find(plan)), std::log(kl->perplexity_plan.value),
                1e-4)
        << drop;
    EXPECT_NEAR(evaluator->dense_nll(), std::log(kl->perplexity_dense.value), 1e-4);
  }
  EXPECT_EQ(*evaluator->Measure(Plan::Dense(model->n_layer())), 0);
}

TEST_P(EvaluatorOnTwin, FiguresDoNotDependOnWhatWasMeasuredBefore) {
  const auto model = OpenOrFail(TwinAt(GetParam().type));
  const Windows windows = ExcerptWindows(*model, 64, 2);
  const PlanEvaluatorOptions options = Options(model, windows);
  PlanEvaluatorOptions forgetful = options;
  forgetful.prefix_bytes = 0;
  const auto sharing = OpenEvaluator(model, windows, options);
  for (uint32_t bits = 1; bits < 4096; bits = bits * 3 + 1) {
    Plan plan = Plan::Dense(model->n_layer());
    for (int b = 0; b < 12; ++b) {
      plan.set_keep({b}, (bits >> b & 1U) != 0 ? 0 : 1);
    }
    const auto alone = OpenEvaluator(model, windows, forgetful);
    EXPECT_EQ(*sharing->Measure(plan), *alone->Measure(plan)) << plan.ToText();
    EXPECT_EQ(sharing->archive().Find(plan)->windows, alone->archive().Find(plan)->windows) << plan.ToText();
    EXPECT_DOUBLE_EQ(alone->work().flops, alone->work().whole_flops);
  }
  EXPECT_LT(sharing->work().flops, 0.9 * sharing->work().whole_flops);
}

TEST_P(EvaluatorOnTwin, BoundsAreBelowTheKlAndNotFar) {
  const auto model = OpenOrFail(TwinAt(GetParam().type));
  const Windows windows = ExcerptWindows(*model, 128, 3);
  PlanEvaluatorOptions options = Options(model, windows);
  const auto evaluator = OpenEvaluator(model, windows, options);
  options.engine.n_threads = 2;
  const auto threaded = OpenEvaluator(model, windows, options);
  for (const char* drop : {"a3", "f3", "a5,f5", "a0,f1,a4", "f0", "a1,f1,a3,f3,a4,f4", "f0,f1,f2,f3,f4,f5"}) {
    const Plan plan = *Plan::ParseDrop(drop, model->n_layer());
    for (int64_t window = 0; window < windows.count(); ++window) {
      const auto bound = evaluator->BoundWindow(plan, window);
      ASSERT_TRUE(bound.ok()) << bound.status().message();
      EXPECT_EQ(*bound, *threaded->BoundWindow(plan, window));
      const auto loss = evaluator->MeasureWindow(plan, window);
      ASSERT_TRUE(loss.ok());
      EXPECT_LE(*bound, loss->kl) << drop;
      EXPECT_GE(*bound, 0.5 * loss->kl) << drop;
      EXPECT_EQ(*evaluator->BoundWindow(plan, window), loss->kl);  // known now
    }
  }
  EXPECT_EQ(evaluator->work().windows_bounded, 7 * windows.count());
}

INSTANTIATE_TEST_SUITE_P(
    Stores, EvaluatorOnTwin,
    testing::Values(Case{"F16", KvType::kF16, Ablation::kZero}, Case{"F16", KvType::kF16, Ablation::kMean},
                    Case{"Q4_K_M", KvType::kQ8_0, Ablation::kZero}, Case{"Q4_K_M", KvType::kQ8_0, Ablation::kMean}),
    [](const auto& test) {
      return std::string(test.param.type) + (test.param.ablation == Ablation::kMean ? "Mean" : "Zero");
    });

// The loop as the papers write it: every candidate of every round computed whole, from the embedding to the head, by an
// evaluator that shares and remembers nothing.
std::vector<BlockId> NaiveGsi(const std::shared_ptr<const Model>& model, const Windows& windows,
                              PlanEvaluatorOptions options, double* flops) {
  options.prefix_bytes = 0;
  const auto evaluator = OpenEvaluator(model, windows, options);
  std::vector<BlockId> order;
  Plan base = Plan::Dense(model->n_layer());
  while (static_cast<int>(order.size()) < model->n_block()) {
    const DropCandidates candidates = CandidatesOf(base);
    double least = std::numeric_limits<double>::infinity();
    size_t best = 0;
    for (size_t i = 0; i < candidates.plans.size(); ++i) {
      const auto loss = evaluator->Measure(candidates.plans[i]);
      EXPECT_TRUE(loss.ok());
      if (*loss < least) {
        least = *loss;
        best = i;
      }
    }
    order.push_back(candidates.blocks[best]);
    base = candidates.plans[best];
  }
  *flops = evaluator->work().flops;
  return order;
}

void ExpectExactGsi(const std::shared_ptr<const Model>& model, const Windows& windows,
                    const PlanEvaluatorOptions& options) {
  double naive_flops = 0;
  const std::vector<BlockId> naive = NaiveGsi(model, windows, options, &naive_flops);
  const auto evaluator = OpenEvaluator(model, windows, options);
  const auto gsi = RankByGsi(evaluator.get());
  ASSERT_TRUE(gsi.ok()) << gsi.status().message();
  EXPECT_EQ(gsi->ranking.drop_order, naive);
  EXPECT_NEAR(gsi->naive_flops / naive_flops, 1, 1e-9);
  EXPECT_LT(evaluator->work().flops, 0.6 * naive_flops);
}

TEST(ExactGsi, IsTheNaiveLoopOnTheTwin) {
  for (const char* type : {"F16", "Q4_K_M"}) {
    const auto model = OpenOrFail(TwinAt(type));
    PlanEvaluatorOptions options;
    options.engine = OneThread(std::string(type) == "F16" ? KvType::kF16 : KvType::kQ8_0);
    ExpectExactGsi(model, ExcerptWindows(*model, 64, 6), options);
  }
}

TEST(ExactGsi, IsTheNaiveLoopOnRandomModels) {
  for (const int n_layer : {3, 5, 8}) {
    RandomModelOptions shape;
    shape.n_layer = n_layer;
    shape.n_vocab = 300;
    shape.type = n_layer == 5 ? "Q4_K_M" : "F16";
    shape.seed = static_cast<uint64_t>(n_layer);
    const auto model = OpenOrFail(RandomModel("gsi-" + std::to_string(n_layer), shape));
    PlanEvaluatorOptions options;
    options.engine = OneThread(KvType::kF16);
    ExpectExactGsi(model, RandomWindows(*model, 48, 5), options);
  }
}

TEST(ExactGsi, OneBlockResidentGivesTheSameOrder) {
  const auto model = OpenOrFail(TwinPath());
  const Windows windows = ExcerptWindows(*model, 64, 2);
  PlanEvaluatorOptions options;
  options.engine = OneThread(KvType::kF16);
  const auto all = OpenEvaluator(model, windows, options);
  options.max_resident_blocks = 1;
  const auto one = OpenEvaluator(model, windows, options);
  const auto expected = RankByGsi(all.get());
  const auto found = RankByGsi(one.get());
  ASSERT_TRUE(expected.ok() && found.ok());
  EXPECT_EQ(found->ranking, expected->ranking);
}

TEST(Evaluator, MeansOfAnotherModelAndForeignVocabulariesAreRefused) {
  const auto model = OpenOrFail(TwinPath());
  const Windows windows = ExcerptWindows(*model, 64, 1);
  PlanEvaluatorOptions options;
  options.engine = OneThread(KvType::kF16);
  options.ablation = Ablation::kMean;
  const auto without = PlanEvaluator::Create(model, windows, options, nullptr);
  ASSERT_FALSE(without.ok());
  EXPECT_EQ(without.status().code(), ErrorCode::kInvalidArgument);
  options.ablation = Ablation::kZero;
  RandomModelOptions shape;
  options.reference = OpenOrFail(RandomModel("small-vocabulary", shape));
  const auto foreign = PlanEvaluator::Create(model, windows, options, nullptr);
  ASSERT_FALSE(foreign.ok());
  EXPECT_NE(foreign.status().message().find("8192"), std::string::npos);
}

TEST(Evaluator, AgainstAReferenceItMeasuresQuantisationToo) {
  const auto f16 = OpenOrFail(TwinPath());
  const auto q4 = OpenOrFail(TwinAt("Q4_K_M"));
  const Windows windows = ExcerptWindows(*f16, 128, 2);
  PlanEvaluatorOptions options;
  options.engine = OneThread(KvType::kF16);
  options.reference = f16;
  const auto itself = OpenEvaluator(f16, windows, options);
  const auto quantised = OpenEvaluator(q4, windows, options);
  const Plan dense = Plan::Dense(6);
  EXPECT_LT(*itself->Measure(dense), 1e-5);
  EXPECT_GT(*quantised->Measure(dense), 1e-3);
  EXPECT_LT(*quantised->Measure(dense), 0.1);
}

TEST(Evaluator, AReferenceWithOtherKvTypesPredictsWithItsOwn) {
  const auto model = OpenOrFail(ReferencePath());
  const Windows windows = ExcerptWindows(*model, 128, 2);
  PlanEvaluatorOptions options;
  options.engine = OneThread(KvType::kF16);
  const auto f16 = OpenEvaluator(model, windows, options);
  const Plan dense = Plan::Dense(model->n_layer());
  std::vector<double> losses;
  for (const KvType type : {KvType::kF16, KvType::kQ8_0, KvType::kQ4_0}) {
    PlanEvaluatorOptions smaller;
    smaller.engine = OneThread(type);
    const auto itself = OpenEvaluator(model, windows, smaller);
    smaller.reference = model;
    EXPECT_LT(*OpenEvaluator(model, windows, smaller)->Measure(dense), 1e-5) << "without reference_engine: itself";
    smaller.reference_engine = options.engine;
    const auto against = OpenEvaluator(model, windows, smaller);
    losses.push_back(*against->Measure(dense));
    EXPECT_EQ(against->dense_nll(), f16->dense_nll());
    EXPECT_NEAR(against->archive().MeanNll(*against->archive().Find(dense)), itself->dense_nll(), 1e-12);
    EXPECT_EQ(against->work().dense_flops, f16->work().dense_flops);
  }
  EXPECT_LT(losses[0], losses[1]);
  EXPECT_LT(losses[1], losses[2]);
  EXPECT_GT(losses[2], 1e-4);
}

class RankOnTwin : public testing::Test {
 protected:
  void SetUp() override {
    model_ = OpenOrFail(TwinPath());
    windows_ = ExcerptWindows(*model_, 64, 4);
    path_ = ScratchFolder() + "/rank-" + testing::UnitTest::GetInstance()->current_test_info()->name() + ".profile";
    Remove();
    options_.engine = OneThread(KvType::kF16);
    options_.engine.n_ctx = 512;
    options_.minutes = 0;
    const auto memory = MeasureMemoryModel(model_, options_.engine);
    ASSERT_TRUE(memory.ok());
    memory_ = *memory;
    options_.density_cells = {64, 4096};
  }
  void TearDown() override { Remove(); }
  void Remove() const {
    std::filesystem::remove(path_);
    std::filesystem::remove(path_ + ".journal");
  }
  Result<RankSummary> RankOnce(const std::atomic<bool>* stop,
                               const std::function<void(const RankProgress&)>& progress) {
    RecoveryNotes notes;
    auto store = ProfileStore::Open(path_, *model_, &notes);
    EXPECT_TRUE(store.ok()) << store.status().message();
    EXPECT_TRUE(notes.empty());
    return Rank(model_, windows_, memory_, options_, store->get(), stop, progress);
  }
  Profile Read() const {
    RecoveryNotes notes;
    auto profile = ReadProfile(path_, *model_, &notes);
    EXPECT_TRUE(profile.ok()) << profile.status().message();
    EXPECT_TRUE(notes.empty());
    return *profile;
  }

  std::shared_ptr<const Model> model_;
  Windows windows_;
  MemoryModel memory_;
  RankOptions options_;
  std::string path_;
};

TEST_F(RankOnTwin, AnInterruptedRunGoesOnAsIfItHadNotStopped) {
  const auto summary = RankOnce(nullptr, {});
  ASSERT_TRUE(summary.ok()) << summary.status().message();
  const Profile whole = Read();
  ASSERT_NE(whole.primary(), nullptr);
  for (const char* method : {"gsi", "one-shot", "density", "shortgpt", "mha-drop", "ffn-skip", "random"}) {
    EXPECT_NE(whole.FindRanking(method), nullptr) << method;
  }
  ASSERT_GT(summary->phases.size(), 3u);
  EXPECT_EQ(summary->phases[2].name, "gsi");
  EXPECT_EQ(summary->phases[2].recalled, 0) << "all its work is its own";
  EXPECT_EQ(summary->phases[3].name, "one-shot");
  EXPECT_GT(summary->phases[3].recalled, 0);
  int64_t measured = 0;
  for (const RankPhase& phase : summary->phases) {
    measured += phase.windows;
  }
  Remove();

  // Stopped in the middle of GSI and of a density chain; each time a new process would begin where it was.
  int64_t resumed = 0;
  for (const char* where : {"gsi", "density 2/2"}) {
    std::atomic<bool> stop = false;
    const auto stopped = RankOnce(
        &stop, [&](const RankProgress& progress) { stop = stop || (progress.phase == where && progress.done > 0.4); });
    ASSERT_FALSE(stopped.ok());
    EXPECT_EQ(stopped.status().code(), ErrorCode::kAborted);
  }
  const auto last = RankOnce(nullptr, {});
  ASSERT_TRUE(last.ok());
  EXPECT_EQ(last->phases.front().name, "statistics");
  EXPECT_EQ(last->phases.front().flops, 0);
  for (const RankPhase& phase : last->phases) {
    resumed += phase.windows;
  }
  EXPECT_LT(resumed, measured / 2);
  const Profile again = Read();
  EXPECT_EQ(again.rankings, whole.rankings);
  EXPECT_EQ(again.means, whole.means);
  ASSERT_EQ(again.primary()->rows().size(), whole.primary()->rows().size());
  for (const ArchiveRow& row : whole.primary()->rows()) {
    const ArchiveRow* found = again.primary()->Find(row.plan);
    ASSERT_NE(found, nullptr) << row.plan.ToText();
    EXPECT_EQ(found->windows, row.windows) << row.plan.ToText();
  }
}

TEST_F(RankOnTwin, StatisticsAreMeasuredOnceForATextAndAnewForAnother) {
  // Windows that they took; the ranking is stopped behind them.
  const auto measured = [&] {
    int windows = 0;
    std::atomic<bool> stop = false;
    const auto stopped = RankOnce(&stop, [&](const RankProgress& progress) {
      windows += progress.done > 0 && progress.done < 1 ? 1 : 0;
      stop = progress.phase == "statistics" && progress.done == 1;
    });
    EXPECT_EQ(stopped.status().code(), ErrorCode::kAborted);
    return windows;
  };
  EXPECT_EQ(measured(), 3) << "of four, the last is the phase's end";
  const BlockMeans means = Read().means;
  options_.engine.n_threads = 2;
  EXPECT_EQ(measured(), 0);
  EXPECT_EQ(Read().means, means);

  Profile unknown = Read();
  unknown.statistics_set.clear();
  ASSERT_TRUE(WriteProfile(unknown, path_).ok());
  EXPECT_EQ(measured(), 3) << "nobody knows what the means are of";
  Profile poor = Read();
  poor.means = {};
  ASSERT_TRUE(WriteProfile(poor, path_).ok());
  EXPECT_EQ(measured(), 3);

  options_.engine.key_type = KvType::kQ8_0;
  EXPECT_EQ(measured(), 3);
  windows_ = ExcerptWindows(*model_, 64, 3);
  EXPECT_EQ(measured(), 2);
  EXPECT_NE(Read().means, means);
}

TEST(Exhaustive, MeasuresEveryPlanOnceAndRefusesLargeModels) {
  RandomModelOptions shape;
  shape.n_layer = 2;
  const auto model = OpenOrFail(RandomModel("exhaustive-2", shape));
  PlanEvaluatorOptions options;
  options.engine = OneThread(KvType::kF16);
  const auto evaluator = OpenEvaluator(model, RandomWindows(*model, 32, 2), options);
  ASSERT_TRUE(MeasureEveryPlan(evaluator.get()).ok());
  EXPECT_EQ(evaluator->archive().rows().size(), 16);
  const auto reference = OpenOrFail(ReferencePath());
  const auto large = OpenEvaluator(reference, ExcerptWindows(*reference, 32, 1), options);
  const Status refused = MeasureEveryPlan(large.get());
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.message().find("32 blocks"), std::string::npos);
}

}  // namespace
}  // namespace espalier::test
