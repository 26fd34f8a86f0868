// What an agent is paid: the paper's additive reward, or the measured loss of the plan it ends with.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/plan.h"
#include "policy/policy.h"

namespace espalier {

class Reward {
 public:
  virtual ~Reward() = default;
  // As on the command line: "paper", "measured".
  virtual const char* name() const = 0;
  // Called when an episode begins, before anything is paid in it.
  virtual void Begin(const Observation& task) = 0;
  // Paid for the step that led to `plan`. `ended`: it was the last.
  virtual Result<double> Pay(const Plan& plan, bool ended) = 0;
};

// Value of each block to an additive reward at one task: alpha * importance - beta * memory, importance and memory each
// in shares of their sums over all blocks. Memory is what the block holds at the task's workload, KV included.
// arXiv 2505.17138 has alpha 1.0 and beta 0.3 and leaves the scales open; in shares the dense plan is worth
// alpha - beta, and neither part can drown the other.
struct PaperRewardOptions {
  double alpha = 1.0;
  double beta = 0.3;
};
// REQUIRES: one importance for each block of the task's model, none negative.
std::vector<double> BlockValues(const Observation& task, std::span<const double> importance,
                                const PaperRewardOptions& options = {});

// After every step the sum of the kept blocks' values (arXiv 2505.17138).
class PaperReward final : public Reward {
 public:
  explicit PaperReward(std::vector<double> importance, PaperRewardOptions options = {})
      : importance_(std::move(importance)), options_(options) {}

  const char* name() const override { return "paper"; }
  void Begin(const Observation& task) override { values_ = BlockValues(task, importance_, options_); }
  Result<double> Pay(const Plan& plan, bool ended) override;

 private:
  std::vector<double> importance_;
  PaperRewardOptions options_;
  std::vector<double> values_;
};

// Nothing until the end; then minus the logarithm of the loss of the plan that the episode ends with: policies are
// judged by ratios of losses, and a tenth more is as bad at a small loss as at a large one. It is counted from the
// least loss known of a plan that fits the task, which no action changes: so the best that an agent can do is worth
// about 0 at every task, and what it has to learn are differences between actions, not how hard tasks are. Losses
// beyond e^2 times the least are all as bad.
class MeasuredReward final : public Reward {
 public:
  // Loss of a plan in nats per token: measured, or predicted by a surrogate.
  using LossOf = std::function<Result<double>(const Plan&)>;
  // Least loss known of a plan that fits.
  using LeastLoss = std::function<double(const Observation&)>;
  MeasuredReward(LossOf loss_of, LeastLoss least_loss)
      : loss_of_(std::move(loss_of)), least_loss_(std::move(least_loss)) {}

  const char* name() const override { return "measured"; }
  void Begin(const Observation& task) override { least_ = least_loss_(task); }
  Result<double> Pay(const Plan& plan, bool ended) override;

  // Added to losses, so that plans that lose nothing do not rule.
  static constexpr double kFloor = 1e-3;

 private:
  LossOf loss_of_;
  LeastLoss least_loss_;
  double least_ = 0;
};

}  // namespace espalier
