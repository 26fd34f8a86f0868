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

EngineOptions RunnerOptions(EngineOptions engine, const Windows& windows) {
  engine.n_ubatch = static_cast<int>(windows.window_tokens);
  engine.n_ctx = windows.window_tokens;
  engine.means = nullptr;  // the evaluator adds them itself
  return engine;
}

Status NotFinite(const Model& model, const Plan& plan, int64_t window) {
  return Corrupt(fmt::format("{} under plan '{}': window {} gives logits that are not finite", model.path(),
                             plan.ToText(), window));
}

// The rows of `hidden`, a window's stream after its last block, whose logits are scored.
std::span<const float> ScoredRowsOf(const Windows& windows, int64_t n_embd, std::span<const float> hidden) {
  return hidden.subspan(static_cast<size_t>((windows.first_target - 1) * n_embd),
                        static_cast<size_t>(windows.targets_per_window() * n_embd));
}

int32_t TargetOf(const Windows& windows, int64_t window, int64_t row) {
  return windows.at(window)[static_cast<size_t>(windows.first_target + row)];
}

// What losses are measured against: the predictions of a dense model, by window and scored token.
struct DenseReference {
  DenseReference(const Windows& windows, const Model& model)
      : rows(windows.count() * windows.targets_per_window(), model.hparams().n_vocab) {}
  DensePredictions rows;
  double nll = 0;    // summed
  double flops = 0;  // spent on it
};

// Keeps what `runner`'s model predicts in a window whose stream after its last block is `hidden`. Returns the loss of
// that model: 0 from itself.
Result<WindowLoss> KeepWindow(BlockRunner* runner, const Windows& windows, int64_t window,
                              std::span<const float> hidden, DenseReference* kept) {
  const int64_t n_targets = windows.targets_per_window();
  kept->flops += runner->HeadFlops(n_targets);
  bool finite = true;
  WindowLoss loss;
  ESPALIER_RETURN_IF_ERROR(runner->Head(
      ScoredRowsOf(windows, runner->model().hparams().n_embd, hidden), [&](int64_t row, std::span<const float> logits) {
        const int64_t index = window * n_targets + row;
        finite = finite && kept->rows.Keep(index, logits);
        loss.nll += finite ? kept->rows.Compare(index, logits, TargetOf(windows, window, row)).nll : 0;
      }));
  if (!finite) {
    return NotFinite(runner->model(), Plan::Dense(runner->model().n_layer()), window);
  }
  kept->nll += loss.nll;
  return loss;
}

// Keeps the predictions of a model that is not the evaluator's own.
Status KeepForeign(BlockRunner* runner, const Windows& windows, DenseReference* kept,
                   const std::function<void(int64_t, int64_t)>& progress) {
  const Plan plan = Plan::Dense(runner->model().n_layer());
  std::vector<float> hidden(static_cast<size_t>(windows.window_tokens * runner->model().hparams().n_embd));
  for (int64_t window = 0; window < windows.count(); ++window) {
    ESPALIER_RETURN_IF_ERROR(runner->Embed(windows.at(window), hidden));
    ESPALIER_RETURN_IF_ERROR(RunPlan(runner, {plan, nullptr, 0, plan.n_block()}, hidden, &kept->flops));
    ESPALIER_RETURN_IF_ERROR(KeepWindow(runner, windows, window, hidden, kept).status());
    if (progress) {
      progress(window + 1, windows.count());
    }
  }
  return Status::Ok();
}

class PlanEvaluatorOnRunner final : public PlanEvaluator {
 public:
  PlanEvaluatorOnRunner(std::unique_ptr<BlockRunner> runner, const Windows& windows,
                        const PlanEvaluatorOptions& options, DenseReference dense, ProfileStore* store)
      : windows_(windows),
        options_(options),
        store_(store),
        own_archive_(DescribeSet(windows, options)),
        runner_(std::move(runner)),
        dense_(std::move(dense)),
        dense_plan_(Plan::Dense(runner_->model().n_layer())),
        hidden_(static_cast<size_t>(windows.window_tokens) * static_cast<size_t>(runner_->model().hparams().n_embd)),
        normed_(ScoredRows().size()),
        prefixes_(hidden_.size(), options.prefix_bytes, means() != nullptr) {
    work_.dense_flops = dense_.flops;
  }

  const Model& model() const override { return runner_->model(); }
  const MeasurementSet& set() const override { return own_archive_.set(); }
  const Archive& archive() const override {
    const Archive* stored = store_ != nullptr ? store_->profile().FindArchive(set()) : nullptr;
    return stored != nullptr ? *stored : own_archive_;
  }
  int64_t n_windows() const override { return windows_.count(); }
  int64_t tokens_scored() const override { return set().tokens_scored; }
  double dense_nll() const override { return dense_.nll / static_cast<double>(tokens_scored()); }
  const EvaluatorWork& work() const override { return work_; }

  Result<WindowLoss> MeasureWindow(const Plan& plan, int64_t window) override;
  Result<double> BoundWindow(const Plan& plan, int64_t window) override;
  Result<double> Measure(const Plan& plan) override;
  double WindowFlops(const Plan& plan) const override;

  void StopWhen(const std::atomic<bool>* stop) override { stop_ = stop; }

  // Measures losses against its own model, dense.
  Status KeepOwn(const std::function<void(int64_t, int64_t)>& progress);

 private:
  const BlockMeans* means() const { return options_.ablation == Ablation::kMean ? options_.means.get() : nullptr; }
  int64_t n_targets() const { return windows_.targets_per_window(); }
  // The rows of hidden_ whose logits are scored.
  std::span<const float> ScoredRows() const { return ScoredRowsOf(windows_, model().hparams().n_embd, hidden_); }
  int32_t target(int64_t window, int64_t row) const { return TargetOf(windows_, window, row); }
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
  DenseReference dense_;
  Plan dense_plan_;
  std::vector<float> hidden_;
  std::vector<float> normed_;  // of ScoredRows()
  PrefixCache prefixes_;
  std::unique_ptr<KlBound> bound_;
  double bound_slack_ = 0;  // nats per token
  bool bound_prepared_ = false;
  EvaluatorWork work_;
  const std::atomic<bool>* stop_ = nullptr;
};

Status PlanEvaluatorOnRunner::KeepOwn(const std::function<void(int64_t, int64_t)>& progress) {
  for (int64_t window = 0; window < n_windows(); ++window) {
    ESPALIER_RETURN_IF_ERROR(RunWindow(dense_plan_, window, &dense_.flops));
    ESPALIER_ASSIGN_OR_RETURN(const WindowLoss loss, KeepWindow(runner_.get(), windows_, window, hidden_, &dense_));
    if (archive().LossOf(dense_plan_) == std::nullopt) {
      ESPALIER_RETURN_IF_ERROR(Remember(dense_plan_, window, loss));  // exactly 0 from itself
    }
    if (progress) {
      progress(window + 1, n_windows());
    }
  }
  work_.dense_flops = dense_.flops;
  return Status::Ok();
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
    const WindowLoss of_row = dense_.rows.Compare(window * n_targets() + row, logits, target(window, row));
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
  auto bound = std::make_unique<KlBound>(dense_.rows, head, runner_->options().n_threads);
  work_.flops += static_cast<double>(n_windows()) * runner_->HeadFlops(n_targets());
  // The head's kernel may round otherwise than single dot products do. How far they are apart is measured on a window,
  // and allowed for several times over: a logit off by e moves a row's KL by 2 e at most.
  ESPALIER_RETURN_IF_ERROR(RunWindow(dense_plan_, 0, &work_.flops));
  ESPALIER_RETURN_IF_ERROR(runner_->FinalNorm(ScoredRows(), normed_));
  const auto n_embd = static_cast<size_t>(model().hparams().n_embd);
  double error = 0;
  ESPALIER_RETURN_IF_ERROR(runner_->Head(ScoredRows(), [&](int64_t row, std::span<const float> logits) {
    const auto normed = std::span(normed_).subspan(static_cast<size_t>(row) * n_embd, n_embd);
    error = std::max(error, bound->ErrorAgainst(row, normed, logits, dense_.rows));
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
  ESPALIER_CHECK(options.reference != nullptr || !options.reference_engine);
  DenseReference dense(windows, *model);
  if (options.reference != nullptr) {
    ESPALIER_RETURN_IF_ERROR(CheckReference(*model, *options.reference));
    const EngineOptions engine = RunnerOptions(options.reference_engine.value_or(options.engine), windows);
    ESPALIER_ASSIGN_OR_RETURN(const auto reference,
                              BlockRunner::Create(options.reference, engine, options.max_resident_blocks));
    ESPALIER_RETURN_IF_ERROR(KeepForeign(reference.get(), windows, &dense, progress));
  }
  ESPALIER_ASSIGN_OR_RETURN(auto runner, BlockRunner::Create(std::move(model), RunnerOptions(options.engine, windows),
                                                             options.max_resident_blocks));
  auto evaluator =
      std::make_unique<PlanEvaluatorOnRunner>(std::move(runner), windows, options, std::move(dense), store);
  if (options.reference == nullptr) {
    ESPALIER_RETURN_IF_ERROR(evaluator->KeepOwn(progress));
  }
  return std::unique_ptr<PlanEvaluator>(std::move(evaluator));
}

}  // namespace espalier
