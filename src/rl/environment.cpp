#include "rl/environment.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace espalier {

PruningEnvironment::PruningEnvironment(EnvironmentOptions options, std::shared_ptr<const BlockMarks> marks,
                                       Reward* reward)
    : options_(options), n_block_(static_cast<int>(marks->mark.size())), marks_(std::move(marks)), reward_(reward) {}

EnvironmentStep PruningEnvironment::Observe() {
  fits_ = Fits(task_, footprint());
  mask_[static_cast<size_t>(stop_action())] = fits_ ? 1 : 0;
  const bool nothing_left = static_cast<int>(dropped_.size()) == n_block_;
  terminated_ = (fits_ && options_.ends_when_it_fits) || nothing_left;
  encoder_->Encode(plan(), footprint(), &state_);
  return {0, terminated_, false};
}

EnvironmentStep PruningEnvironment::Reset(const Observation& task) {
  ESPALIER_CHECK(static_cast<int>(task.memory->block_bytes.size()) == n_block_);
  task_ = task;
  encoder_.emplace(options_.state, *marks_, task_);
  plan_.emplace(*task.memory, task.workload);
  dropped_.clear();
  dropped_.reserve(static_cast<size_t>(n_block_));
  mask_.assign(static_cast<size_t>(n_action()), 1);
  reward_->Begin(task_);
  return Observe();
}

Result<EnvironmentStep> PruningEnvironment::Step(int action) {
  ESPALIER_CHECK(!terminated_ && action >= 0 && action < n_action());
  ESPALIER_CHECK(mask_[static_cast<size_t>(action)] != 0);
  const bool stop = action == stop_action();
  if (!stop) {
    plan_->Drop({action});
    dropped_.push_back({action});
    mask_[static_cast<size_t>(action)] = 0;
  }
  EnvironmentStep step = Observe();
  step.terminated = terminated_ = terminated_ || stop;
  ESPALIER_ASSIGN_OR_RETURN(step.reward, reward_->Pay(plan(), terminated_));
  return step;
}

}  // namespace espalier
