#include "rl/dqn.h"

#include <cmath>
#include <utility>

#include "base/uniform.h"

namespace espalier {
namespace {

using Eigen::Index;
using Eigen::MatrixXf;
using Eigen::VectorXf;

MatrixXf Columns(std::span<const Experience* const> batch, State Experience::*which) {
  MatrixXf states((batch[0]->*which).size(), static_cast<Index>(batch.size()));
  for (size_t i = 0; i < batch.size(); ++i) {
    states.col(static_cast<Index>(i)) = batch[i]->*which;
  }
  return states;
}

}  // namespace

VectorXf TdTargets(std::span<const Experience* const> batch, const QNetwork& online, const QNetwork& target,
                   double gamma, bool double_dqn) {
  const MatrixXf next = Columns(batch, &Experience::next);
  const MatrixXf values = target.Forward(next);
  const MatrixXf choices = double_dqn ? online.Forward(next) : values;
  VectorXf targets(static_cast<Index>(batch.size()));
  for (size_t i = 0; i < batch.size(); ++i) {
    const auto column = static_cast<Index>(i);
    double value = batch[i]->reward;
    if (!batch[i]->terminated) {
      value += gamma * values(MaskedArgmax(choices.col(column), batch[i]->next_mask), column);
    }
    targets[column] = static_cast<float>(value);
  }
  return targets;
}

DqnLearner::DqnLearner(std::unique_ptr<QNetwork> network, const DqnOptions& options)
    : options_(options),
      online_(std::move(network)),
      target_(online_->Clone()),
      adam_(online_->n_parameter(), options.learning_rate),
      buffer_(options.buffer),
      random_(options.seed) {}

int DqnLearner::Act(const State& state, const ActionMask& mask, double epsilon) {
  if (Uniform(&random_) >= epsilon) {
    return MaskedArgmax(online_->Forward(state).col(0), mask);
  }
  std::vector<int> allowed;
  for (size_t a = 0; a < mask.size(); ++a) {
    if (mask[a] != 0) {
      allowed.push_back(static_cast<int>(a));
    }
  }
  return allowed[random_() % allowed.size()];
}

double DqnLearner::Learn() {
  if (buffer_.size() < std::max<size_t>(options_.warm_up, 1)) {
    return 0;
  }
  const std::vector<const Experience*> batch = buffer_.Sample(static_cast<size_t>(options_.batch), &random_);
  const VectorXf targets = TdTargets(batch, *online_, *target_, options_.gamma, options_.double_dqn);
  double squared = 0;
  VectorXf gradient = VectorXf::Zero(online_->n_parameter());
  online_->ForwardBackward(
      Columns(batch, &Experience::state),
      [&](Index first, const MatrixXf& values) {
        MatrixXf derivative = MatrixXf::Zero(values.rows(), values.cols());
        for (Index column = 0; column < values.cols(); ++column) {
          const int action = batch[static_cast<size_t>(first + column)]->action;
          const float error = values(action, column) - targets[first + column];
          squared += static_cast<double>(error) * error;
          derivative(action, column) = 2 * error / static_cast<float>(batch.size());
        }
        return derivative;
      },
      &gradient);
  // One bad batch must not throw the parameters far away.
  constexpr float kMostNorm = 10;
  if (const float norm = gradient.norm(); norm > kMostNorm) {
    gradient *= kMostNorm / norm;
  }
  VectorXf parameters = online_->parameters();
  adam_.Step(gradient, &parameters);
  const auto tau = static_cast<float>(options_.tau);
  target_->set_parameters((1 - tau) * target_->parameters() + tau * parameters);
  online_->set_parameters(std::move(parameters));
  return squared / static_cast<double>(batch.size());
}

}  // namespace espalier
