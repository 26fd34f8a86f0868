#pragma once

#include <Eigen/Core>
#include <cstdint>

namespace espalier::nn {

// Adam (arXiv 1412.6980).
class Adam {
 public:
  Adam(Eigen::Index n, double learning_rate);
  void set_learning_rate(double rate) { learning_rate_ = static_cast<float>(rate); }
  // REQUIRES: n numbers each
  void Step(const Eigen::VectorXf& gradient, Eigen::VectorXf* parameters);

 private:
  float learning_rate_;
  int64_t steps_ = 0;
  Eigen::VectorXf mean_;
  Eigen::VectorXf square_;
};

}  // namespace espalier::nn
