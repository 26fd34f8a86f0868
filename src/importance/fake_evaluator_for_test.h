// An evaluator whose losses are a function of the plan, for tests of searches: it counts what is asked of it.
#pragma once

#include <atomic>
#include <cstdlib>
#include <functional>
#include <set>
#include <string>
#include <utility>

#include "base/check.h"
#include "eval/plan_evaluator.h"
#include "support/models.h"

namespace espalier::test {

class FunctionEvaluator final : public PlanEvaluator {
 public:
  static constexpr int64_t kTokensPerWindow = 10;
  // KL of one window, summed over its tokens.
  using Kl = std::function<double(const Plan&, int64_t window)>;

  FunctionEvaluator(int n_layer, int64_t n_windows, Kl kl)
      : model_(ModelOf(n_layer)), archive_(SetOf(n_windows)), kl_(std::move(kl)) {}

  const Model& model() const override { return *model_; }
  const MeasurementSet& set() const override { return archive_.set(); }
  const Archive& archive() const override { return archive_; }
  int64_t n_windows() const override { return set().n_windows; }
  int64_t tokens_scored() const override { return set().tokens_scored; }
  double dense_nll() const override { return 3; }
  Result<WindowLoss> MeasureWindow(const Plan& plan, int64_t window) override {
    const ArchiveRow* row = archive_.Find(plan);
    const int64_t known = row != nullptr ? static_cast<int64_t>(row->windows.size()) : 0;
    ESPALIER_CHECK(window <= known);
    if (window < known) {
      ++work_.windows_recalled;
      return row->windows[static_cast<size_t>(window)];
    }
    if (stop_ != nullptr && *stop_) {
      return Aborted("measuring plans was stopped");
    }
    ++work_.windows_measured;
    const WindowLoss loss = {kl_(plan, window), 30};
    archive_.Add(plan, window, {&loss, 1});
    return loss;
  }
  // `bound_share` of the KL.
  Result<double> BoundWindow(const Plan& plan, int64_t window) override {
    ++work_.windows_bounded;
    return bound_share * kl_(plan, window);
  }
  Result<double> Measure(const Plan& plan) override {
    double sum = 0;
    for (int64_t window = 0; window < n_windows(); ++window) {
      ESPALIER_ASSIGN_OR_RETURN(const WindowLoss loss, MeasureWindow(plan, window));
      sum += loss.kl;
    }
    return sum / static_cast<double>(tokens_scored());
  }
  double WindowFlops(const Plan& plan) const override { return plan.kept_attention() + plan.kept_ffn() + 1; }
  const EvaluatorWork& work() const override { return work_; }
  void StopWhen(const std::atomic<bool>* stop) override { stop_ = stop; }

  double bound_share = 0;

 private:
  // Only its shape is looked at.
  static std::shared_ptr<const Model> ModelOf(int n_layer) {
    RandomModelOptions options;
    options.n_layer = n_layer;
    options.n_embd = 32;
    options.n_ff = 32;
    options.n_head = 1;
    options.n_vocab = 260;
    return OpenOrFail(RandomModel("shape-" + std::to_string(n_layer), options));
  }
  static MeasurementSet SetOf(int64_t n_windows) {
    MeasurementSet set;
    set.corpus = "numbers";
    set.n_windows = n_windows;
    set.tokens_scored = n_windows * kTokensPerWindow;
    return set;
  }

  std::shared_ptr<const Model> model_;
  Archive archive_;
  Kl kl_;
  EvaluatorWork work_;
  const std::atomic<bool>* stop_ = nullptr;
};

}  // namespace espalier::test
