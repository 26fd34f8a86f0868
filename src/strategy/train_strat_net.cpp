#include "strategy/train_strat_net.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include "base/uniform.h"
#include "nn/adam.h"

namespace espalier {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::MatrixXf;
using Eigen::VectorXd;
using Eigen::VectorXf;

int64_t CellsOf(const MemoryModel& memory, double kv_to_weights) {
  return std::max<int64_t>(1, std::llround(kv_to_weights * memory.cells_of_weights()));
}

double TrainStratNet(const LossSurrogate& surrogate, const MemoryModel& memory, double worst_loss,
                     const StratTrainingOptions& options, StratNet* net) {
  std::mt19937_64 random(options.seed);
  nn::Adam adam(net->parameters().size(), options.learning_rate);
  const double spread = options.most_kv_to_weights / options.least_kv_to_weights;
  double late = 0;
  int n_late = 0;
  for (int step = 0; step < options.steps; ++step) {
    std::vector<StratInput> requests;
    std::vector<Objectives> objectives;
    for (int i = 0; i < options.requests_per_step; ++i) {
      const double ratio = options.least_kv_to_weights * std::pow(spread, Uniform(&random));
      requests.push_back({{Uniform(&random)}, ratio});
      objectives.emplace_back(memory, CellsOf(memory, ratio), worst_loss);
    }
    const double done = static_cast<double>(step) / options.steps;
    double value = 0;
    VectorXf gradient = VectorXf::Zero(net->parameters().size());
    net->ForwardBackward(
        requests, static_cast<float>(1 + (options.last_sharpness - 1) * done),
        [&](const MatrixXf& keep) {
          MatrixXf derivative(keep.rows(), keep.cols());
          const MatrixXd fractions = keep.cast<double>();
          MatrixXd loss_by_keep;
          const VectorXd log_losses = surrogate.MeansAndSlopes(fractions, &loss_by_keep);
          for (Index i = 0; i < keep.cols(); ++i) {
            const Objectives& at = objectives[static_cast<size_t>(i)];
            const Scalarised g = AugmentedTchebycheff(requests[static_cast<size_t>(i)].preference,
                                                      at.Size(fractions.col(i)), at.Loss(log_losses[i]));
            const VectorXd by_keep = g.by_size * at.size_by_keep() + g.by_loss * at.loss_by_log() * loss_by_keep.col(i);
            derivative.col(i) = (by_keep / static_cast<double>(keep.cols())).cast<float>();
            value += g.value / static_cast<double>(keep.cols());
          }
          return derivative;
        },
        &gradient);
    VectorXf parameters = net->parameters();
    adam.Step(gradient, &parameters);
    net->set_parameters(std::move(parameters));
    if (done >= 0.9) {
      late += value;
      ++n_late;
    }
  }
  return late / std::max(n_late, 1);
}

}  // namespace espalier
