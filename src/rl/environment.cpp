#include "rl/environment.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace espalier {

PruningEnvironment::PruningEnvironment(EnvironmentOptions options, std::vector<double> importance, Reward* reward)
    : options_(options),
      n_block_(static_cast<int>(importance.size())),
      importance_(std::move(importance)),
      reward_(reward) {}

EnvironmentStep PruningEnvironment::Observe() {
  footprint_ = FootprintOf(task_, plan_);
  fits_ = Fits(task_, footprint_);
  mask_.assign(static_cast<size_t>(n_action()), 0);
  bool any = false;
  for (int b = 0; b < n_block_; ++b) {
    mask_[static_cast<size_t>(b)] = plan_.kept({b}) ? 1 : 0;
    any = any || plan_.kept({b});
  }
  mask_[static_cast<size_t>(stop_action())] = fits_ ? 1 : 0;
  terminated_ = (fits_ && options_.ends_when_it_fits) || !any;
  return {encoder_->Encode(plan_, footprint_), 0, terminated_, false};
}

EnvironmentStep PruningEnvironment::Reset(const Observation& task) {
  ESPALIER_CHECK(static_cast<int>(task.memory->block_bytes.size()) == n_block_);
  task_ = task;
  encoder_.emplace(options_.state, importance_, task_);
  plan_ = Plan::Dense(task_.n_layer());
  dropped_.clear();
  reward_->Begin(task_);
  return Observe();
}

Result<EnvironmentStep> PruningEnvironment::Step(int action) {
  ESPALIER_CHECK(!terminated_ && action >= 0 && action < n_action());
  ESPALIER_CHECK(mask_[static_cast<size_t>(action)] != 0);
  const bool stop = action == stop_action();
  if (!stop) {
    plan_.Drop({action});
    dropped_.push_back({action});
  }
  EnvironmentStep step = Observe();
  step.terminated = terminated_ = terminated_ || stop;
  ESPALIER_ASSIGN_OR_RETURN(step.reward, reward_->Pay(plan_, terminated_));
  return step;
}

}  // namespace espalier
