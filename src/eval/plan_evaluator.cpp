#include "eval/plan_evaluator.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>

#include "base/check.h"
#include "base/hash.h"
#include "base/stopwatch.h"
#include "eval/dense_predictions.h"
#include "eval/kl_bound.h"
#include "eval/plan_run.h"
#include "eval/prefix_cache.h"
#include "runtime/block_runner.h"

namespace espalier {
namespace {

EngineOptions RunnerOptions(const PlanEvaluatorOptions& options, const Windows& windows) {
  EngineOptions engine = options.engine;
  engine.n_ubatch = static_cast<int>(windows.window_tokens);
  engine.n_ctx = windows.window_tokens;
  engine.means = nullptr;  // the evaluator adds them itself
  return engine;
}

Status NotFinite(const Model& model, const Plan& plan, int64_t window) {
  return Corrupt(fmt::format("{} under plan '{}': window {} gives logits that are not finite", model.path(),
                             plan.ToText(), window));
}

class PlanEvaluatorOnRunner final : public PlanEvaluator {
 public:
  PlanEvaluatorOnRunner(std::unique_ptr<BlockRunner> runner, const Windows& windows,
                        const PlanEvaluatorOptions& options, ProfileStore* store)
      : windows_(windows),
        options_(options),
        store_(store),
        own_archive_(DescribeSet(windows, options)),
        runner_(std::move(runner)),
        dense_(windows.count() * windows.targets_per_window(), runner_->model().hparams().n_vocab),
        dense_plan_(Plan::Dense(runner_->model().n_layer())),
        hidden_(static_cast<size_t>(windows.window_tokens) * static_cast<size_t>(runner_->model().hparams().n_embd)),
        normed_(ScoredRows().size()),
        prefixes_(hidden_.size(), options.prefix_bytes, means() != nullptr) {}

  const Model& model() const override { return runner_->model(); }
  const MeasurementSet& set() const override { return own_archive_.set(); }
  const Archive& archive() const override {
    const Archive* stored = store_ != nullptr ? store_->profile().FindArchive(set()) : nullptr;
    return stored != nullptr ? *stored : own_archive_;
  }
  int64_t n_windows() const override { return windows_.count(); }
  int64_t tokens_scored() const override { return set().tokens_scored; }
  double dense_nll() const override { return dense_nll_ / static_cast<double>(tokens_scored()); }
  const EvaluatorWork& work() const override { return work_; }

  Result<WindowLoss> MeasureWindow(const Plan& plan, int64_t window) override;
  Result<double> BoundWindow(const Plan& plan, int64_t window) override;
  Result<double> Measure(const Plan& plan) override;
  double WindowFlops(const Plan& plan) const override;

  void StopWhen(const std::atomic<bool>* stop) override { stop_ = stop; }

  // Computes the predictions that losses are measured against, with `reference` (may be the evaluator's own runner).
  Status KeepDensePredictions(BlockRunner* reference, const std::function<void(int64_t, int64_t)>& progress);
  BlockRunner* runner() { return runner_.get(); }

 private:
  const BlockMeans* means() const { return options_.ablation == Ablation::kMean ? options_.means.get() : nullptr; }
  int64_t n_targets() const { return windows_.targets_per_window(); }
  // The rows of hidden_ whose logits are scored.
  std::span<const float> ScoredRows() const {
    const auto n_embd = static_cast<size_t>(model().hparams().n_embd);
    return std::span(hidden_).subspan(static_cast<size_t>(windows_.first_target - 1) * n_embd,
                                      static_cast<size_t>(n_targets()) * n_embd);
  }
  int32_t target(int64_t window, int64_t row) const {
    return windows_.at(window)[static_cast<size_t>(windows_.first_target + row)];
  }
  // The stream of `plan` after its last block, in hidden_.
  Status RunWindow(const Plan& plan, int64_t window, double* flops);
  Result<WindowLoss> Compute(const Plan& plan, int64_t window);
  // What the archive has.
  std::optional<WindowLoss> Recall(const Plan& plan, int64_t window) const;
  bool stopped() const { return stop_ != nullptr && stop_->load(std::memory_order_relaxed); }
  // bound_ and its slack, where the head's matrix can be read.
  Status PrepareBound();
  Status Remember(const Plan& plan, int64_t window, const WindowLoss& loss);

  Windows windows_;
  PlanEvaluatorOptions options_;
  ProfileStore* store_;
  Archive own_archive_;  // where there is no store
  std::unique_ptr<BlockRunner> runner_;
  DensePredictions dense_;
  Plan dense_plan_;
  double dense_nll_ = 0;  // summed
  std::vector<float> hidden_;
  std::vector<float> normed_;  // of ScoredRows()
  PrefixCache prefixes_;
  std::unique_ptr<KlBound> bound_;
  double bound_slack_ = 0;  // nats per token
  bool bound_prepared_ = false;
  EvaluatorWork work_;
  const std::atomic<bool>* stop_ = nullptr;
};

Status PlanEvaluatorOnRunner::KeepDensePredictions(BlockRunner* reference,
                                                   const std::function<void(int64_t, int64_t)>& progress) {
  const bool own = reference == runner_.get();
  std::vector<float> foreign;  // the reference may be of another width
  if (!own) {
    foreign.resize(static_cast<size_t>(windows_.window_tokens) *
                   static_cast<size_t>(reference->model().hparams().n_embd));
  }
  const std::span<float> hidden = own ? std::span(hidden_) : std::span(foreign);
  const auto n_embd = static_cast<size_t>(reference->model().hparams().n_embd);
  const Plan plan = Plan::Dense(reference->model().n_layer());
  Status status;
  for (int64_t window = 0; window < n_windows() && status.ok(); ++window) {
    if (own) {
      status = RunWindow(dense_plan_, window, &work_.dense_flops);
    } else {
      status = reference->Embed(windows_.at(window), hidden);
      if (status.ok()) {
        status = RunPlan(reference, {plan, nullptr, 0, plan.n_block()}, hidden, &work_.dense_flops);
      }
    }
    if (!status.ok()) {
      break;
    }
    bool finite = true;
    const auto rows = std::span<const float>(hidden).subspan(static_cast<size_t>(windows_.first_target - 1) * n_embd,
                                                             static_cast<size_t>(n_targets()) * n_embd);
    work_.dense_flops += reference->HeadFlops(n_targets());
    WindowLoss loss;
    status = reference->Head(rows, [&](int64_t row, std::span<const float> logits) {
      const int64_t index = window * n_targets() + row;
      finite = finite && dense_.Keep(index, logits);
      loss.nll += finite ? dense_.Compare(index, logits, target(window, row)).nll : 0;
    });
    if (status.ok() && !finite) {
      status = NotFinite(reference->model(), plan, window);
    }
    dense_nll_ += loss.nll;
    if (status.ok() && own && archive().LossOf(dense_plan_) == std::nullopt) {
      status = Remember(dense_plan_, window, loss);  // exactly 0 from itself
    }
    if (progress) {
      progress(window + 1, n_windows());
    }
  }
  return status;
}

Status PlanEvaluatorOnRunner::RunWindow(const Plan& plan, int64_t window, double* flops) {
  int done = prefixes_.Find(window, plan, hidden_);
  if (done < 0) {
    ESPALIER_RETURN_IF_ERROR(runner_->Embed(windows_.at(window), hidden_));
    prefixes_.Put(window, plan, 0, hidden_);
    done = 0;
  }
  while (done < plan.n_block()) {
    const int end_of_layer = done - done % 2 + 2;
    ESPALIER_RETURN_IF_ERROR(RunPlan(runner_.get(), {plan, means(), done, end_of_layer}, hidden_, flops));
    done = end_of_layer;
    prefixes_.Put(window, plan, done, hidden_);
  }
  return Status::Ok();
}

Result<WindowLoss> PlanEvaluatorOnRunner::Compute(const Plan& plan, int64_t window) {
  ESPALIER_RETURN_IF_ERROR(RunWindow(plan, window, &work_.flops));
  WindowLoss loss;
  ESPALIER_RETURN_IF_ERROR(runner_->Head(ScoredRows(), [&](int64_t row, std::span<const float> logits) {
    const WindowLoss of_row = dense_.Compare(window * n_targets() + row, logits, target(window, row));
    loss.kl += of_row.kl;
    loss.nll += of_row.nll;
  }));
  work_.flops += runner_->HeadFlops(n_targets());
  work_.whole_flops += WindowFlops(plan);
  ++work_.windows_measured;
  if (!std::isfinite(loss.kl) || !std::isfinite(loss.nll)) {
    return NotFinite(model(), plan, window);
  }
  return loss;
}

Status PlanEvaluatorOnRunner::Remember(const Plan& plan, int64_t window, const WindowLoss& loss) {
  if (store_ != nullptr) {
    return store_->Append(set(), plan, window, {&loss, 1});
  }
  own_archive_.Add(plan, window, {&loss, 1});
  return Status::Ok();
}

std::optional<WindowLoss> PlanEvaluatorOnRunner::Recall(const Plan& plan, int64_t window) const {
  ESPALIER_CHECK(plan.n_layer() == model().n_layer() && plan.whole_blocks_only());
  ESPALIER_CHECK(window >= 0 && window < n_windows());
  const ArchiveRow* const row = archive().Find(plan);
  if (row == nullptr || window >= static_cast<int64_t>(row->windows.size())) {
    return std::nullopt;
  }
  return row->windows[static_cast<size_t>(window)];
}

Status PlanEvaluatorOnRunner::PrepareBound() {
  bound_prepared_ = true;
  const HeadRows* const head = runner_->head_rows();
  if (head == nullptr) {
    return Status::Ok();
  }
  auto bound = std::make_unique<KlBound>(dense_, head, runner_->options().n_threads);
  work_.flops += static_cast<double>(n_windows()) * runner_->HeadFlops(n_targets());
  // The head's kernel may round otherwise than single dot products do. How far they are apart is measured on a window,
  // and allowed for several times over: a logit off by e moves a row's KL by 2 e at most.
  ESPALIER_RETURN_IF_ERROR(RunWindow(dense_plan_, 0, &work_.flops));
  ESPALIER_RETURN_IF_ERROR(runner_->FinalNorm(ScoredRows(), normed_));
  const auto n_embd = static_cast<size_t>(model().hparams().n_embd);
  double error = 0;
  ESPALIER_RETURN_IF_ERROR(runner_->Head(ScoredRows(), [&](int64_t row, std::span<const float> logits) {
    const auto normed = std::span(normed_).subspan(static_cast<size_t>(row) * n_embd, n_embd);
    error = std::max(error, bound->ErrorAgainst(row, normed, logits, dense_));
  }));
  work_.flops += runner_->HeadFlops(n_targets());
  constexpr double kAllowance = 4;
  constexpr double kOtherArithmetic = 1e-3;  // more than reordered sums explain
  if (error < kOtherArithmetic) {
    bound_slack_ = 2 * kAllowance * error + 1e-6;
    bound_ = std::move(bound);
  }
  return Status::Ok();
}

Result<double> PlanEvaluatorOnRunner::BoundWindow(const Plan& plan, int64_t window) {
  if (const auto known = Recall(plan, window)) {
    return known->kl;
  }
  if (stopped()) {
    return Aborted("measuring plans was stopped");
  }
  const Stopwatch watch;
  if (!bound_prepared_) {
    ESPALIER_RETURN_IF_ERROR(PrepareBound());
  }
  if (bound_ == nullptr) {
    return 0.0;
  }
  ESPALIER_RETURN_IF_ERROR(RunWindow(plan, window, &work_.flops));
  ESPALIER_RETURN_IF_ERROR(runner_->FinalNorm(ScoredRows(), normed_));
  const double kl = bound_->OfRows(window * n_targets(), normed_, bound_slack_);
  work_.flops += bound_->FlopsPerRow() * static_cast<double>(n_targets());
  work_.seconds += watch.Milliseconds() / 1000;
  ++work_.windows_bounded;
  if (!std::isfinite(kl)) {
    return NotFinite(model(), plan, window);
  }
  return kl;
}

Result<WindowLoss> PlanEvaluatorOnRunner::MeasureWindow(const Plan& plan, int64_t window) {
  if (const auto known = Recall(plan, window)) {
    ++work_.windows_recalled;
    return *known;
  }
  const ArchiveRow* const row = archive().Find(plan);
  ESPALIER_CHECK(window == (row != nullptr ? static_cast<int64_t>(row->windows.size()) : 0));
  if (stopped()) {
    return Aborted("measuring plans was stopped");
  }
  const Stopwatch watch;
  ESPALIER_ASSIGN_OR_RETURN(const WindowLoss loss, Compute(plan, window));
  work_.seconds += watch.Milliseconds() / 1000;
  ESPALIER_RETURN_IF_ERROR(Remember(plan, window, loss));
  return loss;
}

Result<double> PlanEvaluatorOnRunner::Measure(const Plan& plan) {
  double sum = 0;
  for (int64_t window = 0; window < n_windows(); ++window) {
    ESPALIER_ASSIGN_OR_RETURN(const WindowLoss loss, MeasureWindow(plan, window));
    sum += loss.kl;
  }
  return sum / static_cast<double>(tokens_scored());
}

double PlanEvaluatorOnRunner::WindowFlops(const Plan& plan) const {
  double flops = runner_->HeadFlops(n_targets());
  for (int b = 0; b < plan.n_block(); ++b) {
    flops += plan.kept({b}) ? runner_->BlockFlops({b}, windows_.window_tokens) : 0;
  }
  return flops;
}

Status CheckReference(const Model& model, const Model& reference) {
  if (model.hparams().n_vocab != reference.hparams().n_vocab) {
    return InvalidArgument(fmt::format("loss of {} against {}: vocabularies of {} and {} entries cannot be compared",
                                       model.path(), reference.path(), model.hparams().n_vocab,
                                       reference.hparams().n_vocab));
  }
  return Status::Ok();
}

}  // namespace

MeasurementSet DescribeSet(const Windows& windows, const PlanEvaluatorOptions& options) {
  MeasurementSet set;
  set.corpus = windows.corpus;
  set.tokens_hash = HashHex(std::as_bytes(std::span(windows.tokens)));
  set.protocol = ProtocolName(windows.protocol);
  set.window_tokens = windows.window_tokens;
  set.n_windows = windows.count();
  set.tokens_scored = windows.count() * windows.targets_per_window();
  set.key_type = KvTypeName(options.engine.key_type);
  set.value_type = KvTypeName(options.engine.value_type);
  set.ablation = options.ablation;
  if (options.ablation == Ablation::kMean && options.means != nullptr) {
    set.means_hash = HashHex(std::as_bytes(std::span(options.means->values)));
  }
  return set;
}

Result<std::unique_ptr<PlanEvaluator>> PlanEvaluator::Create(std::shared_ptr<const Model> model, const Windows& windows,
                                                             const PlanEvaluatorOptions& options, ProfileStore* store,
                                                             const std::function<void(int64_t, int64_t)>& progress) {
  if (options.ablation == Ablation::kMean && (options.means == nullptr || options.means->empty())) {
    return InvalidArgument(fmt::format("mean ablation of {}: its blocks' means have not been measured", model->path()));
  }
  ESPALIER_CHECK(options.reference == nullptr || store == nullptr);
  const EngineOptions engine = RunnerOptions(options, windows);
  std::unique_ptr<BlockRunner> reference;
  if (options.reference != nullptr) {
    ESPALIER_RETURN_IF_ERROR(CheckReference(*model, *options.reference));
    ESPALIER_ASSIGN_OR_RETURN(reference, BlockRunner::Create(options.reference, engine, options.max_resident_blocks));
  }
  ESPALIER_ASSIGN_OR_RETURN(auto runner, BlockRunner::Create(std::move(model), engine, options.max_resident_blocks));
  auto evaluator = std::make_unique<PlanEvaluatorOnRunner>(std::move(runner), windows, options, store);
  ESPALIER_RETURN_IF_ERROR(
      evaluator->KeepDensePredictions(reference != nullptr ? reference.get() : evaluator->runner(), progress));
  return std::unique_ptr<PlanEvaluator>(std::move(evaluator));
}

}  // namespace espalier
