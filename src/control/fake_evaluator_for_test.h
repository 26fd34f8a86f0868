// An evaluator without a model: what a plan loses is the sum of what its dropped blocks are said to lose.
#pragma once

#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "eval/plan_evaluator.h"

namespace espalier {

class FakeEvaluator final : public PlanEvaluator {
 public:
  static constexpr int64_t kTokensPerWindow = 10;
  static constexpr double kDenseNll = 2;

  // losses[window][block], nats per token.
  explicit FakeEvaluator(std::vector<std::vector<double>> losses)
      : losses_(std::move(losses)), archive_(SetOf(losses_)) {}

  const Model& model() const override { std::abort(); }
  const MeasurementSet& set() const override { return archive_.set(); }
  const Archive& archive() const override { return archive_; }
  int64_t n_windows() const override { return static_cast<int64_t>(losses_.size()); }
  int64_t tokens_scored() const override { return set().tokens_scored; }
  double dense_nll() const override { return kDenseNll; }
  Status SetBase(const Plan& base) override {
    bases.push_back(base.ToText());
    return Status::Ok();
  }
  Result<WindowLoss> MeasureWindow(const Plan& plan, int64_t window) override {
    if (fail_at == plan.ToText()) {
      return Corrupt("logits are not finite");
    }
    double loss = 0;
    for (const BlockId block : plan.dropped()) {
      loss += losses_[static_cast<size_t>(window)][static_cast<size_t>(block.index)];
    }
    const WindowLoss measured = {loss * kTokensPerWindow, (kDenseNll + loss) * kTokensPerWindow};
    archive_.Add(plan, window, {&measured, 1});
    return measured;
  }
  Result<double> Measure(const Plan& plan) override {
    measured.push_back(plan.ToText());
    for (int64_t window = 0; window < n_windows(); ++window) {
      ESPALIER_RETURN_IF_ERROR(MeasureWindow(plan, window).status());
    }
    return *archive_.LossOf(plan);
  }
  double WindowFlops(const Plan&) const override { return 1; }
  const EvaluatorWork& work() const override { return work_; }
  void RequestAbort() override {}

  std::vector<std::string> measured;  // plans, in the order of Measure
  std::vector<std::string> bases;     // likewise of SetBase
  std::string fail_at;                // a plan that cannot be measured

 private:
  static MeasurementSet SetOf(const std::vector<std::vector<double>>& losses) {
    MeasurementSet set;
    set.corpus = "fake";
    set.tokens_hash = std::string(32, 'a');
    set.protocol = "gptq";
    set.window_tokens = kTokensPerWindow + 1;
    set.n_windows = static_cast<int64_t>(losses.size());
    set.tokens_scored = set.n_windows * kTokensPerWindow;
    set.key_type = set.value_type = "f16";
    return set;
  }

  std::vector<std::vector<double>> losses_;
  Archive archive_;
  EvaluatorWork work_;
};

}  // namespace espalier
