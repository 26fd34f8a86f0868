// How alike two plans are, as far as their loss goes: the covariance of a Gaussian process over keep fractions.
//
//   k(x, y) = trend * t(x) t(y)  +  linear * sum_i (1 - x_i)(1 - y_i)  +  signal * matern52(r)  +  offset
//   t(x)    = ln(sum_i u_i (1 - x_i) + 0.1)
//   r^2     = sum_i w_i (x_i - y_i)^2,   w_i = u_i^power / length(kind of i)^2
//
// u_i is what is known beforehand about block i: the loss of dropping it alone, over the mean of all. Outputs are
// logarithms of losses: the trend says that losses add up, the linear part that a block multiplies them by a factor of
// its own, and the Matern part takes what neither explains. A handful of hyper-parameters for any number of blocks: 64
// length scales of their own could not be told from a few hundred plans (Matern 5/2: Rasmussen and Williams, Gaussian
// Processes for Machine Learning, 4.17).
#pragma once

#include <Eigen/Core>
#include <array>
#include <vector>

namespace espalier {

class PlanKernel {
 public:
  // In the order of `theta`, natural logarithms but for the power.
  enum Hyper { kSignal, kLengthAttention, kLengthFfn, kPower, kTrend, kLinear, kOffset, kNoise, kHypers };
  using Theta = std::array<double, kHypers>;

  // What a fit starts from: everything of about the size of standardised outputs.
  static Theta Start();
  // Bounds within which a fit keeps each.
  static Theta Least();
  static Theta Most();

  // `prior`: u_i by block before scaling, positive. REQUIRES: an even number of blocks, attention and FFN in turn.
  explicit PlanKernel(std::vector<double> prior);

  int n_block() const { return static_cast<int>(log_prior_.size()); }
  const Theta& theta() const { return theta_; }
  void set_theta(const Theta& theta);

  double noise() const { return noise_; }
  // u, by block: the loss of dropping it alone, over the mean of all.
  const Eigen::VectorXd& prior() const { return prior_; }
  // Without noise. Plans are columns of keep fractions.
  double operator()(const Eigen::Ref<const Eigen::VectorXd>& x, const Eigen::Ref<const Eigen::VectorXd>& y) const;
  // k(x, x): the prior variance.
  double Variance(const Eigen::Ref<const Eigen::VectorXd>& x) const { return (*this)(x, x); }
  // [columns of x, columns of y]
  Eigen::MatrixXd Matrix(const Eigen::MatrixXd& x, const Eigen::MatrixXd& y) const;
  // The function f(x) = sum_j weight_j k(x, y_j), and its derivative, for many x at once.
  class Expansion;
  // Derivative of k(x, y_j) by x: a column for each column of y.
  Eigen::MatrixXd Gradient(const Eigen::Ref<const Eigen::VectorXd>& x, const Eigen::MatrixXd& y) const;
  // Derivative of k(x, x) by x.
  Eigen::VectorXd VarianceGradient(const Eigen::Ref<const Eigen::VectorXd>& x) const;
  // sum_ij weights_ij * d k(x_i, x_j) / d theta, noise included. `weights` symmetric.
  Theta Contract(const Eigen::MatrixXd& x, const Eigen::MatrixXd& weights) const;

 private:
  double Trend(const Eigen::Ref<const Eigen::VectorXd>& x) const;
  Eigen::VectorXd TrendGradient(const Eigen::Ref<const Eigen::VectorXd>& x) const;
  Eigen::VectorXd Trends(const Eigen::MatrixXd& x) const;

  std::vector<double> log_prior_;
  Theta theta_;
  // From theta.
  Eigen::VectorXd weight_;  // w
  Eigen::VectorXd prior_;   // u
  double signal_ = 1, trend_ = 1, linear_ = 1, offset_ = 1, noise_ = 1;
};

// What of the sum does not depend on x is summed up beforehand: the trend, the linear part and the offset cost no loop
// over y, the Matern part a matrix product. Copies what it needs. Thread rule: const calls from any thread.
class PlanKernel::Expansion {
 public:
  Expansion() = default;
  // REQUIRES: a weight for each column of y
  Expansion(const PlanKernel& kernel, const Eigen::MatrixXd& y, const Eigen::VectorXd& weight);

  // f(x) for each column of x; its derivative by x into the columns of `gradient`, unless that is nullptr.
  Eigen::VectorXd operator()(const Eigen::MatrixXd& x, Eigen::MatrixXd* gradient = nullptr) const;

 private:
  Eigen::VectorXd prior_;
  Eigen::VectorXd root_;       // by block: root of w, which distances are scaled by
  Eigen::MatrixXd scaled_y_;   // root times y, by column
  Eigen::VectorXd y_squares_;  // squared norms of its columns
  Eigen::VectorXd weight_;     // times signal
  Eigen::VectorXd by_linear_;  // linear * sum_j weight_j (1 - y_j)
  double by_trend_ = 0;        // trend * sum_j weight_j t(y_j)
  double constant_ = 0;        // offset * sum_j weight_j
};

}  // namespace espalier
