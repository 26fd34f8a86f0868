#include "strategy/learn_strategies.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <utility>

#include "base/stopwatch.h"
#include "importance/density.h"
#include "importance/fronts.h"
#include "importance/gsi.h"
#include "strategy/compression_request.h"
#include "strategy/hypervolume.h"
#include "strategy/refine.h"
#include "strategy/strategy_plans.h"
#include "surrogate/archive_surrogate.h"

namespace espalier {
namespace {

constexpr int kWorkloads = 6;

class StrategyLoop {
 public:
  StrategyLoop(PlanEvaluator* evaluator, const MemoryModel& memory, const StrategyLoopOptions& options, StratNet* net)
      : evaluator_(evaluator),
        memory_(memory),
        options_(options),
        net_(net),
        n_layer_(static_cast<int>(memory.block_bytes.size() / 2)),
        kv_cells_(SpreadOfCells(memory, kWorkloads)),
        surrogate_(&evaluator->archive(), n_layer_),
        windows_before_(evaluator->work().windows_measured),
        flops_before_(evaluator->work().flops) {}

  Result<StrategyReport> Run(const std::function<void(const StrategyRound&)>& progress) {
    progress_ = progress;
    ESPALIER_RETURN_IF_ERROR(MeasureWhatIsMissing());
    ESPALIER_RETURN_IF_ERROR(SearchGreedily());
    bool last_was_empty = false;
    for (;;) {
      ESPALIER_RETURN_IF_ERROR(surrogate_.Refresh());
      StratTrainingOptions training = options_.training;
      training.seed += report_.rounds.size();
      StrategyRound round;
      round.tchebycheff = TrainStratNet(*surrogate_.get(), memory_, report_.worst_loss, training, net_);
      double squares = 0;
      const std::vector<Plan> batch = NextBatch();
      for (const Plan& plan : batch) {
        const double guess = surrogate_.get()->Predict(plan).log_mean;
        ESPALIER_ASSIGN_OR_RETURN(const double loss, evaluator_->Measure(plan));
        squares += std::pow(guess - std::log(loss + LossSurrogate::kFloor), 2);
      }
      round.surrogate_error = batch.empty() ? 0 : std::sqrt(squares / static_cast<double>(batch.size()));
      Close(round);
      report_.exhausted = batch.empty() && last_was_empty;
      last_was_empty = batch.empty();
      if (report_.exhausted || evaluations() >= options_.evaluations) {
        report_.work = (evaluator_->work().flops - flops_before_) /
                       (static_cast<double>(evaluator_->n_windows()) * evaluator_->WindowFlops(Plan::Dense(n_layer_)));
        return std::move(report_);
      }
    }
  }

 private:
  int64_t evaluations() const {
    const int64_t windows = evaluator_->work().windows_measured - windows_before_;
    return (windows + evaluator_->n_windows() - 1) / evaluator_->n_windows();
  }

  void Close(StrategyRound round) {
    round.evaluations = evaluations();
    round.hypervolume = MeanHypervolume();
    round.seconds = watch_.Milliseconds() / 1000;
    report_.rounds.push_back(round);
    if (progress_) {
      progress_(round);
    }
  }

  // What the scale of losses, the surrogate's prior and its first fit need: no block, and every block but one.
  Status MeasureWhatIsMissing() {
    ESPALIER_ASSIGN_OR_RETURN(report_.worst_loss, evaluator_->Measure(Plan::Nothing(n_layer_)));
    ESPALIER_RETURN_IF_ERROR(surrogate_.Refresh());
    if (surrogate_.get() != nullptr) {
      return Status::Ok();
    }
    for (int b = 0; b < 2 * n_layer_; ++b) {
      Plan single = Plan::Dense(n_layer_);
      single.Drop({b});
      ESPALIER_RETURN_IF_ERROR(evaluator_->Measure(single).status());
    }
    return Status::Ok();
  }

  // How losses add up where plans are worth anything.
  Status SearchGreedily() {
    GsiOptions options;
    options.known = std::span(options_.known_greedy).first(MeasuredOf(options_.known_greedy));
    options.enough = [&] { return static_cast<double>(evaluations()) >= options_.greedy_share * options_.evaluations; };
    const bool nothing_new = options.known.size() == static_cast<size_t>(2 * n_layer_);
    const auto observer = [&](int, double) {
      if (!nothing_new) {
        Close({.greedy = true});
      }
    };
    ESPALIER_ASSIGN_OR_RETURN(GsiResult found, RankByGsi(evaluator_, observer, options));
    if (found.ranking.drop_order.size() == static_cast<size_t>(2 * n_layer_)) {
      report_.greedy = std::move(found.ranking);
    }
    return Status::Ok();
  }

  // How many blocks of `order` go, one after the other, until a plan was not measured whole.
  size_t MeasuredOf(std::span<const BlockId> order) const {
    Plan plan = Plan::Dense(n_layer_);
    for (size_t i = 0; i < order.size(); ++i) {
      plan.Drop(order[i]);
      if (!evaluator_->archive().LossOf(plan)) {
        return i;
      }
    }
    return order.size();
  }

  // What StratNet proposes and nobody has measured: its strategies as they are, with one block more or less dropped in
  // their own order, since where a fraction passes a half is the least certain part of it, and some of them held
  // against their neighbours of the same bytes.
  std::vector<Plan> Proposals() const {
    std::vector<Plan> plans;
    std::set<std::string> seen;
    const auto propose = [&](Plan plan) {
      if (!plan.dense() && !evaluator_->archive().LossOf(plan) && seen.insert(plan.ToText()).second) {
        plans.push_back(std::move(plan));
      }
    };
    for (const int64_t cells : kv_cells_) {
      const double ratio = static_cast<double>(cells) / memory_.cells_of_weights();
      const RequestBytes bytes(memory_, {}, Workload::Uniform(1, cells));
      const Eigen::MatrixXf keep = net_->Forward(EvenPreferences(options_.preferences, ratio));
      std::set<std::string> refined;
      for (Eigen::Index i = 0; i < keep.cols(); ++i) {
        const Plan snapped = Snap(keep.col(i));
        const std::vector<BlockId> order = DropOrderOf(keep.col(i));
        const auto dropped = static_cast<int>(snapped.dropped().size());
        for (int n = std::max(1, dropped - 1); n <= std::min(2 * n_layer_, dropped + 1); ++n) {
          Plan plan = Plan::Dense(n_layer_);
          for (int b = 0; b < n; ++b) {
            plan.Drop(order[static_cast<size_t>(b)]);
          }
          propose(std::move(plan));
        }
        if (options_.refine && dropped > 0 && !snapped.keeps_nothing() && refined.insert(snapped.ToText()).second) {
          propose(Refine(*surrogate_.get(), bytes.of(), bytes.of()(snapped), order, snapped, /*most_steps=*/3));
        }
      }
    }
    return plans;
  }

  // One after the other the plan that adds most, if it loses what is hoped, to the fronts with those before it.
  std::vector<Plan> NextBatch() const {
    const std::vector<Plan> plans = Proposals();
    const std::vector<LossSurrogate::Guess> guesses = surrogate_.get()->Predict(plans);
    Fronts fronts(memory_, kv_cells_);
    fronts.AddAll(evaluator_->archive());
    const auto most = std::min<int64_t>(options_.plans_per_round, options_.evaluations - evaluations());
    std::vector<Plan> batch;
    auto optimism = options_.optimism.begin();
    while (static_cast<int64_t>(batch.size()) < most && optimism != options_.optimism.end()) {
      size_t best = plans.size();
      double best_gain = 0;
      const auto hoped = [&](size_t i) {
        return std::max(0.0, std::exp(guesses[i].log_mean - *optimism * guesses[i].log_sd) - LossSurrogate::kFloor);
      };
      for (size_t i = 0; i < plans.size(); ++i) {
        const double gain = fronts.Gain(plans[i], hoped(i), LossSurrogate::kFloor);
        if (gain > best_gain) {
          best = i;
          best_gain = gain;
        }
      }
      if (best == plans.size()) {
        ++optimism;
        continue;
      }
      fronts.Add(plans[best], hoped(best));
      batch.push_back(plans[best]);
    }
    return batch;
  }

  double MeanHypervolume() const {
    double sum = 0;
    const Archive& archive = evaluator_->archive();
    for (const int64_t cells : kv_cells_) {
      const Objectives objectives(memory_, cells, report_.worst_loss);
      std::vector<ObjectivePoint> points = {{1, 0}};
      for (const ArchiveRow& row : archive.rows()) {
        if (archive.whole(row)) {
          const Eigen::MatrixXd keep = KeepMatrix(std::span(&row.plan, 1));
          points.push_back(
              {objectives.Size(keep.col(0)), objectives.Loss(std::log(archive.Loss(row) + LossSurrogate::kFloor))});
        }
      }
      sum += Hypervolume(std::move(points), {1, 1});
    }
    return sum / static_cast<double>(kv_cells_.size());
  }

  PlanEvaluator* evaluator_;
  const MemoryModel& memory_;
  const StrategyLoopOptions& options_;
  StratNet* net_;
  const int n_layer_;
  const std::vector<int64_t> kv_cells_;
  ArchiveSurrogate surrogate_;
  StrategyReport report_;
  std::function<void(const StrategyRound&)> progress_;
  int64_t windows_before_;
  double flops_before_;
  Stopwatch watch_;
};

}  // namespace

Result<StrategyReport> LearnStrategies(PlanEvaluator* evaluator, const MemoryModel& memory,
                                       const StrategyLoopOptions& options, StratNet* net,
                                       const std::function<void(const StrategyRound&)>& progress) {
  return StrategyLoop(evaluator, memory, options, net).Run(progress);
}

}  // namespace espalier
