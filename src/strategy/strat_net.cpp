#include "strategy/strat_net.h"

#include <cmath>
#include <utility>

#include "base/check.h"

namespace espalier {
namespace {

using Eigen::Index;
using Eigen::MatrixXf;
using Eigen::VectorXf;

constexpr Index kInputs = 3;
constexpr Index kHidden = 256;

MatrixXf ColumnsOf(std::span<const StratInput> inputs) {
  MatrixXf x(kInputs, static_cast<Index>(inputs.size()));
  for (size_t i = 0; i < inputs.size(); ++i) {
    const StratInput& input = inputs[i];
    // Ratios of 0.05 to 4 become -1 to 1 or so.
    x.col(static_cast<Index>(i)) << static_cast<float>(2 * input.preference.size - 1),
        static_cast<float>(1 - 2 * input.preference.size),
        static_cast<float>((std::log2(std::max(input.kv_to_weights, 1e-3)) + 1) / 3);
  }
  return x;
}

}  // namespace

StratNet::StratNet(int n_block, uint64_t seed) {
  nn::LayerPlan plan;
  first_ = plan.Add(kInputs, kHidden);
  second_ = plan.Add(kHidden, kHidden);
  output_ = plan.Add(kHidden, n_block);
  parameters_ = plan.Initial(seed);
}

void StratNet::set_parameters(VectorXf parameters) {
  ESPALIER_CHECK(parameters.size() == parameters_.size());
  parameters_ = std::move(parameters);
}

MatrixXf StratNet::Forward(std::span<const StratInput> inputs, float sharpness) const {
  return ForwardBackward(inputs, sharpness, {}, nullptr);
}

MatrixXf StratNet::ForwardBackward(std::span<const StratInput> inputs, float sharpness, const Derivative& derivative,
                                   VectorXf* gradient) const {
  const VectorXf& p = parameters_;
  const MatrixXf x = ColumnsOf(inputs);
  const MatrixXf first = nn::Relu(first_.Apply(p, x));
  const MatrixXf second = nn::Relu(second_.Apply(p, first));
  const MatrixXf keep = (1 + (-sharpness * output_.Apply(p, second)).array().exp()).inverse();
  if (derivative) {
    const MatrixXf dkeep = derivative(keep);
    const MatrixXf dlogit = sharpness * dkeep.array() * keep.array() * (1 - keep.array());
    const MatrixXf dsecond = nn::BackRelu(second, output_.Back(p, second, dlogit, gradient));
    const MatrixXf dfirst = nn::BackRelu(first, second_.Back(p, first, dsecond, gradient));
    first_.Back(p, x, dfirst, gradient);
  }
  return keep;
}

}  // namespace espalier
