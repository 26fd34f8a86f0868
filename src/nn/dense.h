// Dense layers inside one parameter vector, with their gradients: what small networks are put together from. Parameters
// are one vector, so that optimisers, target networks and files need not know what they mean.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <vector>

namespace espalier::nn {

// One dense layer: weights [out x in] by columns, then the bias. Samples are columns.
struct Layer {
  Eigen::Index at = 0;  // where its parameters begin
  Eigen::Index in = 0;
  Eigen::Index out = 0;

  Eigen::Index size() const { return out * in + out; }
  Eigen::Map<const Eigen::MatrixXf> weights(const Eigen::VectorXf& p) const { return {p.data() + at, out, in}; }
  Eigen::Map<const Eigen::VectorXf> bias(const Eigen::VectorXf& p) const { return {p.data() + at + out * in, out}; }

  Eigen::MatrixXf Apply(const Eigen::VectorXf& p, const Eigen::MatrixXf& x) const;
  // From the gradient at its output: adds the layer's part to `gradient`; returns the gradient at its input `x`.
  Eigen::MatrixXf Back(const Eigen::VectorXf& p, const Eigen::MatrixXf& x, const Eigen::MatrixXf& dy,
                       Eigen::VectorXf* gradient) const;
};

// Adds `v` to columns [first, first + n) of `x`. Column by column: Eigen's colwise() takes several times as long where
// columns are short.
void AddToColumns(const Eigen::Ref<const Eigen::VectorXf>& v, Eigen::Index first, Eigen::Index n, Eigen::MatrixXf* x);

Eigen::MatrixXf Relu(Eigen::MatrixXf x);
// Gradient before the ReLU from that behind it; `y` is its output.
Eigen::MatrixXf BackRelu(const Eigen::MatrixXf& y, Eigen::MatrixXf dy);

// Layers laid one after the other.
class LayerPlan {
 public:
  Layer Add(Eigen::Index in, Eigen::Index out);
  Eigen::Index size() const { return size_; }
  // He's initialisation (arXiv 1502.01852, evenly distributed), biases 0.
  Eigen::VectorXf Initial(uint64_t seed) const;

 private:
  std::vector<Layer> layers_;
  Eigen::Index size_ = 0;
};

}  // namespace espalier::nn
