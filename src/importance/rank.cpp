#include "importance/rank.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/stopwatch.h"
#include "eval/dense_statistics.h"
#include "eval/plan_evaluator.h"
#include "importance/density.h"
#include "importance/exhaustive.h"
#include "importance/front_search.h"
#include "importance/gsi.h"
#include "importance/influence.h"
#include "runtime/block_runner.h"

namespace espalier {
namespace {

constexpr int kDensityChains = 6;

class Ranker {
 public:
  Ranker(std::shared_ptr<const Model> model, const Windows& windows, const MemoryModel& memory,
         const RankOptions& options, ProfileStore* store)
      : model_(std::move(model)), windows_(windows), memory_(memory), options_(options), store_(store) {}

  void Watch(const std::atomic<bool>* stop, const std::function<void(const RankProgress&)>* progress) {
    stop_ = stop;
    progress_ = progress;
  }

  Result<RankSummary> Run() {
    ESPALIER_RETURN_IF_ERROR(Phase("statistics", [this] { return Statistics(); }));
    ESPALIER_RETURN_IF_ERROR(Phase("dense predictions", [this] { return OpenEvaluator(); }));
    // Before one-shot: its first round would find those plans measured, and its cost would look smaller than it is.
    if (Wanted("gsi")) {
      ESPALIER_RETURN_IF_ERROR(Phase("gsi", [this] { return Gsi(); }));
    }
    if (Wanted("one-shot")) {
      ESPALIER_RETURN_IF_ERROR(Phase("one-shot", [this] { return OneShot(); }));
    }
    if (options_.density_cells.empty()) {
      options_.density_cells = SpreadOfCells(memory_, kDensityChains);
    }
    for (size_t i = 0; Wanted("density") && i < options_.density_cells.size(); ++i) {
      const std::string name = fmt::format("density {}/{}", i + 1, options_.density_cells.size());
      ESPALIER_RETURN_IF_ERROR(Phase(name, [this, i] { return Density(options_.density_cells[i]); }));
    }
    ESPALIER_RETURN_IF_ERROR(options_.every_plan ? Phase("every plan", [this] { return EveryPlan(); })
                                                 : Phase("swaps", [this] { return Swaps(); }));
    summary_.seconds = Seconds();
    summary_.archive_rows = WholeRows();
    return std::move(summary_);
  }

 private:
  bool Wanted(const char* search) const {
    const auto& wanted = options_.searches;
    return wanted.empty() || std::find(wanted.begin(), wanted.end(), search) != wanted.end();
  }
  double Seconds() const { return total_.Milliseconds() / 1000; }
  bool stopped() const { return stop_ != nullptr && stop_->load(std::memory_order_relaxed); }
  void Report(double done, std::string detail = "") const {
    if (progress_ != nullptr && *progress_) {
      (*progress_)({phase_, done, std::move(detail)});
    }
  }
  RoundObserver Rounds() const {
    return [this](int done, double loss) {
      Report(static_cast<double>(done) / model_->n_block(),
             fmt::format("{} of {} blocks dropped, loss {:.4g}", done, model_->n_block(), loss));
    };
  }

  // Runs `step`, saves the profile, and writes down what it cost.
  template <class Step>
  Status Phase(std::string name, Step step) {
    if (stopped()) {
      return Aborted("ranking was stopped");
    }
    phase_ = std::move(name);
    Report(0);
    const EvaluatorWork before = evaluator_ != nullptr ? evaluator_->work() : EvaluatorWork();
    const int64_t rows_before = WholeRows();
    naive_flops_ = 0;
    const Stopwatch watch;
    ESPALIER_RETURN_IF_ERROR(step());
    ESPALIER_RETURN_IF_ERROR(store_->Save());
    const EvaluatorWork after = evaluator_ != nullptr ? evaluator_->work() : EvaluatorWork();
    RankPhase phase;
    phase.name = phase_;
    phase.plans = WholeRows() - rows_before;
    phase.windows = after.windows_measured - before.windows_measured;
    phase.recalled = after.windows_recalled - before.windows_recalled;
    phase.flops = after.flops + after.dense_flops - before.flops - before.dense_flops + other_flops_;
    phase.naive_flops = naive_flops_;
    phase.seconds = watch.Milliseconds() / 1000;
    other_flops_ = 0;
    summary_.phases.push_back(std::move(phase));
    Report(1);
    return Status::Ok();
  }

  int64_t WholeRows() const { return evaluator_ != nullptr ? evaluator_->archive().CountWholeRows() : 0; }

  // What the profile has of this text stays. Measured again, with another number of threads, a bit of the means could
  // differ, and every loss that was measured with them would be lost.
  bool HasStatistics(const std::string& set) const {
    const Profile& profile = store_->profile();
    const auto methods = {"shortgpt", "mha-drop", "ffn-skip"};
    return profile.statistics_set == set && !profile.means.empty() &&
           std::all_of(methods.begin(), methods.end(),
                       [&](const char* method) { return profile.FindRanking(method) != nullptr; });
  }

  Status Statistics() {
    Profile& profile = store_->profile();
    for (int i = 0; i < options_.n_random; ++i) {
      profile.Put(RankAtRandom(model_->n_layer(), options_.seed + static_cast<uint64_t>(i)));
    }
    PlanEvaluatorOptions measured;
    measured.engine = options_.engine;
    const std::string set = DescribeSet(windows_, measured).Key();
    return HasStatistics(set) ? Status::Ok() : MeasureStatistics(set);
  }

  // Means and influences: one dense pass, block by block.
  Status MeasureStatistics(const std::string& set) {
    EngineOptions engine = options_.engine;
    engine.n_ubatch = static_cast<int>(windows_.window_tokens);
    engine.n_ctx = windows_.window_tokens;
    ESPALIER_ASSIGN_OR_RETURN(const auto runner, BlockRunner::Create(model_, engine, options_.max_resident_blocks));
    ESPALIER_ASSIGN_OR_RETURN(DenseStatistics statistics,
                              MeasureDenseStatistics(runner.get(), windows_, [this](int64_t done, int64_t total) {
                                Report(static_cast<double>(done) / static_cast<double>(total));
                              }));
    for (int b = 0; b < model_->n_block(); ++b) {
      other_flops_ += static_cast<double>(windows_.count()) * runner->BlockFlops({b}, windows_.window_tokens);
    }
    Profile& profile = store_->profile();
    profile.means = std::move(statistics.means);
    profile.Put(RankByLayerInfluence(statistics));
    profile.Put(RankAttentionFirst(statistics));
    profile.Put(RankFfnFirst(statistics));
    profile.statistics_set = set;
    return Status::Ok();
  }

  Status OpenEvaluator() {
    PlanEvaluatorOptions options;
    options.engine = options_.engine;
    options.ablation = options_.ablation;
    options.means = std::make_shared<BlockMeans>(store_->profile().means);
    options.max_resident_blocks = options_.max_resident_blocks;
    ESPALIER_ASSIGN_OR_RETURN(
        evaluator_, PlanEvaluator::Create(model_, windows_, options, store_, [this](int64_t done, int64_t total) {
          Report(static_cast<double>(done) / static_cast<double>(total));
        }));
    evaluator_->StopWhen(stop_);
    store_->profile().ablation = options_.ablation;
    store_->profile().primary_set = store_->profile().ArchiveFor(evaluator_->set()).set().Key();
    return Status::Ok();
  }

  Status OneShot() {
    ESPALIER_ASSIGN_OR_RETURN(Ranking ranking, RankByOneShot(evaluator_.get(), [this](int done, double loss) {
                                Report(static_cast<double>(done) / model_->n_block(),
                                       fmt::format("{} of {} blocks, loss {:.4g}", done, model_->n_block(), loss));
                              }));
    store_->profile().Put(std::move(ranking));
    return Status::Ok();
  }

  // Whether the profile's ranking by GSI was made on this very archive: it has all plans of the chain, with the losses
  // that the ranking says. Proving the order again would cost half of what finding it did: bounds are not kept.
  bool HasGsi() const {
    const Ranking* gsi = store_->profile().FindRanking("gsi");
    if (gsi == nullptr || gsi->score.empty()) {
      return false;
    }
    Plan plan = Plan::Dense(model_->n_layer());
    return std::all_of(gsi->drop_order.begin(), gsi->drop_order.end(), [&](BlockId block) {
      plan.Drop(block);
      return evaluator_->archive().LossOf(plan) == gsi->score[static_cast<size_t>(block.index)];
    });
  }

  Status Gsi() {
    if (HasGsi()) {
      return Status::Ok();
    }
    ESPALIER_ASSIGN_OR_RETURN(GsiResult result, RankByGsi(evaluator_.get(), Rounds()));
    naive_flops_ = result.naive_flops;
    store_->profile().Put(std::move(result.ranking));
    return Status::Ok();
  }

  Status Density(int64_t kv_cells) {
    ESPALIER_ASSIGN_OR_RETURN(Ranking ranking, RankByDensity(evaluator_.get(), memory_, kv_cells, Rounds()));
    store_->profile().Put(std::move(ranking));
    return Status::Ok();
  }

  Status EveryPlan() {
    return MeasureEveryPlan(evaluator_.get(), [this](int64_t done, int64_t total) {
      Report(static_cast<double>(done) / static_cast<double>(total), fmt::format("{} of {} plans", done, total));
    });
  }

  Status Swaps() {
    const double begin = Seconds();
    const double end = options_.minutes ? *options_.minutes * 60 : 2 * begin;
    if (end <= begin) {
      return Status::Ok();
    }
    FrontSearchOptions options;
    options.kv_cells = options_.density_cells;
    return SearchFronts(evaluator_.get(), memory_, options,
                        [&](const FrontSearchResult& result) {
                          Report(std::min(1.0, (Seconds() - begin) / (end - begin)),
                                 fmt::format("{} plans tried, {} better", result.tried, result.improved));
                          return Seconds() >= end;
                        })
        .status();
  }

  std::shared_ptr<const Model> model_;
  const Windows& windows_;
  const MemoryModel& memory_;
  RankOptions options_;
  ProfileStore* store_;
  const std::atomic<bool>* stop_ = nullptr;
  const std::function<void(const RankProgress&)>* progress_ = nullptr;
  std::unique_ptr<PlanEvaluator> evaluator_;
  std::string phase_;
  double naive_flops_ = 0;  // of the phase running
  double other_flops_ = 0;  // not spent by the evaluator
  Stopwatch total_;
  RankSummary summary_;
};

}  // namespace

Result<RankSummary> Rank(std::shared_ptr<const Model> model, const Windows& windows, const MemoryModel& memory,
                         const RankOptions& options, ProfileStore* store, const std::atomic<bool>* stop,
                         const std::function<void(const RankProgress&)>& progress) {
  Ranker ranker(std::move(model), windows, memory, options, store);
  ranker.Watch(stop, &progress);
  return ranker.Run();
}

}  // namespace espalier
