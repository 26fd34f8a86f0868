#include "nn/dense.h"

#include <cmath>
#include <random>

#include "base/uniform.h"

namespace espalier::nn {

using Eigen::Index;
using Eigen::MatrixXf;
using Eigen::VectorXf;

MatrixXf Layer::Apply(const VectorXf& p, const MatrixXf& x) const {
  MatrixXf y = weights(p) * x;
  AddToColumns(bias(p), 0, y.cols(), &y);
  return y;
}

MatrixXf Layer::Back(const VectorXf& p, const MatrixXf& x, const MatrixXf& dy, VectorXf* gradient) const {
  Eigen::Map<MatrixXf>(gradient->data() + at, out, in) += dy * x.transpose();
  Eigen::Map<VectorXf>(gradient->data() + at + out * in, out) += dy.rowwise().sum();
  return weights(p).transpose() * dy;
}

void AddToColumns(const Eigen::Ref<const VectorXf>& v, Index first, Index n, MatrixXf* x) {
  for (Index column = first; column < first + n; ++column) {
    x->col(column) += v;
  }
}

MatrixXf Relu(MatrixXf x) {
  x = x.cwiseMax(0.0F);
  return x;
}

MatrixXf BackRelu(const MatrixXf& y, MatrixXf dy) {
  dy = (y.array() > 0).select(dy, 0.0F);
  return dy;
}

Layer LayerPlan::Add(Index in, Index out) {
  layers_.push_back({size_, in, out});
  size_ += layers_.back().size();
  return layers_.back();
}

VectorXf LayerPlan::Initial(uint64_t seed) const {
  VectorXf p = VectorXf::Zero(size_);
  std::mt19937_64 random(seed);
  for (const Layer& layer : layers_) {
    const double bound = std::sqrt(6.0 / static_cast<double>(layer.in));
    for (Index i = 0; i < layer.in * layer.out; ++i) {
      p[layer.at + i] = static_cast<float>(bound * (2 * Uniform(&random) - 1));
    }
  }
  return p;
}

}  // namespace espalier::nn
