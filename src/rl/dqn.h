// Deep Q-learning with action masks: replay, a target network with soft updates, squared TD error
// (arXiv 1312.5602; double DQN: arXiv 1509.06461), as arXiv 2505.17138 uses it. Learning rate, tau, the schedule of
// epsilon, the buffer's size and the number of episodes are not published; those here were chosen on the reference
// models.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "nn/adam.h"
#include "rl/q_network.h"
#include "rl/replay_buffer.h"

namespace espalier {

struct DqnOptions {
  double gamma = 0.99;
  double learning_rate = 1e-3;
  double tau = 0.01;  // share of the online parameters that the target takes over at each update
  bool double_dqn = true;
  int batch = 64;
  size_t buffer = 100'000;
  size_t warm_up = 500;  // experiences before the first update
  uint64_t seed = 1;
};

// What Q(state, action) should be for each experience: reward + gamma * Q_target(next, a*), the reward alone where the
// episode terminated. a* is the allowed action that `target` values most or, with double DQN, `online`.
Eigen::VectorXf TdTargets(std::span<const Experience* const> batch, const QNetwork& online, const QNetwork& target,
                          double gamma, bool double_dqn);

// Thread rule: one thread at a time.
class DqnLearner {
 public:
  DqnLearner(std::unique_ptr<QNetwork> network, const DqnOptions& options);

  // With probability epsilon any allowed action, else the best one. REQUIRES: one is allowed.
  int Act(const State& state, const ActionMask& mask, double epsilon);
  void Remember(Experience experience) { buffer_.Add(std::move(experience)); }
  // One gradient step on a batch, and the target follows. The batch's mean squared TD error; 0 during the warm-up.
  double Learn();
  void set_learning_rate(double rate) { adam_.set_learning_rate(rate); }

  const QNetwork& online() const { return *online_; }
  const QNetwork& target() const { return *target_; }

 private:
  DqnOptions options_;
  std::unique_ptr<QNetwork> online_;
  std::unique_ptr<QNetwork> target_;
  nn::Adam adam_;
  ReplayBuffer buffer_;
  std::mt19937_64 random_;
};

}  // namespace espalier
