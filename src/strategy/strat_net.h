// StratNet (arXiv 2505.12216): a small network from a request to a strategy, one keep fraction for each block. Trained
// once for a model, it answers any number of requests in one forward pass.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <functional>
#include <span>

#include "nn/dense.h"
#include "strategy/objectives.h"

namespace espalier {

// What StratNet sees of a request.
struct StratInput {
  Preference preference;
  double kv_to_weights = 1;  // bytes of the dense model's KV cache at the workload over those of its weights
};

// A perceptron (3 -> 256 -> 256 -> blocks; ReLU, sigmoid at the end). Thread rule: const calls from any thread.
class StratNet {
 public:
  StratNet(int n_block, uint64_t seed);

  int n_block() const { return static_cast<int>(output_.out); }
  const Eigen::VectorXf& parameters() const { return parameters_; }
  // REQUIRES: as many as there are
  void set_parameters(Eigen::VectorXf parameters);

  // Keep fractions in (0, 1), a column for each input. `sharpness` multiplies what enters the sigmoid: above 1,
  // fractions are nearer to 0 and 1.
  Eigen::MatrixXf Forward(std::span<const StratInput> inputs, float sharpness = 1) const;
  // The same; `derivative` gives a loss's derivative by each fraction, in the same shape, and the loss's gradient by
  // the parameters is added to `gradient`.
  using Derivative = std::function<Eigen::MatrixXf(const Eigen::MatrixXf& keep)>;
  Eigen::MatrixXf ForwardBackward(std::span<const StratInput> inputs, float sharpness, const Derivative& derivative,
                                  Eigen::VectorXf* gradient) const;

 private:
  nn::Layer first_, second_, output_;
  Eigen::VectorXf parameters_;
};

}  // namespace espalier
