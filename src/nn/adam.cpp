#include "nn/adam.h"

#include <cmath>

namespace espalier::nn {

using Eigen::Index;
using Eigen::VectorXf;

Adam::Adam(Index n, double learning_rate)
    : learning_rate_(static_cast<float>(learning_rate)), mean_(VectorXf::Zero(n)), square_(VectorXf::Zero(n)) {}

void Adam::Step(const VectorXf& gradient, VectorXf* parameters) {
  constexpr float kMeanDecay = 0.9F;
  constexpr float kSquareDecay = 0.999F;
  constexpr float kEpsilon = 1e-8F;
  // Far below what changes a parameter, and far above the numbers that processors are a hundred times slower with:
  // units that hardly ever answer have moments that fade for ever.
  constexpr float kLeastMean = 1e-30F;
  constexpr float kLeastGradient = 1e-16F;
  constexpr float kLeastSquare = 1e-35F;
  ++steps_;
  mean_ = kMeanDecay * mean_ + (1 - kMeanDecay) * gradient;
  mean_ = (mean_.array().abs() < kLeastMean).select(0.0F, mean_);
  square_ = (kSquareDecay * square_ +
             (1 - kSquareDecay) * (gradient.array().abs() < kLeastGradient).select(0.0F, gradient).cwiseAbs2())
                .cwiseMax(kLeastSquare);
  const float mean_scale = 1 / (1 - std::pow(kMeanDecay, static_cast<float>(steps_)));
  const float square_scale = 1 / (1 - std::pow(kSquareDecay, static_cast<float>(steps_)));
  parameters->array() -=
      learning_rate_ * mean_scale * mean_.array() / ((square_scale * square_.array()).sqrt() + kEpsilon);
}

}  // namespace espalier::nn
