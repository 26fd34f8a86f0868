#include "surrogate/plan_kernel.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"

namespace espalier {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

const double kRoot5 = std::sqrt(5.0);
constexpr double kTrendFloor = 0.1;  // of a mean block's loss: plans that drop next to nothing do not rule the trend

double Matern(double r2) {
  const double s = kRoot5 * std::sqrt(r2);
  return (1 + s + s * s / 3) * std::exp(-s);
}

// By the squared distance; smooth at 0, where the derivative by the distance is not needed.
double MaternSlope(double r2) {
  const double s = kRoot5 * std::sqrt(r2);
  return -5.0 / 6.0 * (1 + s) * std::exp(-s);
}

}  // namespace

PlanKernel::Theta PlanKernel::Start() {
  Theta theta;
  theta[kSignal] = std::log(0.3);
  theta[kLengthAttention] = std::log(2.0);
  theta[kLengthFfn] = std::log(2.0);
  theta[kPower] = 0.3;
  theta[kTrend] = std::log(1.0);
  theta[kLinear] = std::log(0.01);
  theta[kOffset] = std::log(1.0);
  theta[kNoise] = std::log(1e-3);
  return theta;
}

PlanKernel::Theta PlanKernel::Least() {
  Theta theta;
  theta.fill(std::log(1e-4));
  theta[kLengthAttention] = theta[kLengthFfn] = std::log(0.3);
  theta[kPower] = 0;
  theta[kNoise] = std::log(1e-6);
  return theta;
}

PlanKernel::Theta PlanKernel::Most() {
  Theta theta;
  theta.fill(std::log(1e2));
  theta[kLengthAttention] = theta[kLengthFfn] = std::log(30.0);
  theta[kPower] = 1.5;
  theta[kNoise] = std::log(0.3);
  return theta;
}

PlanKernel::PlanKernel(std::vector<double> prior) : log_prior_(std::move(prior)), theta_(Start()) {
  ESPALIER_CHECK(!log_prior_.empty() && log_prior_.size() % 2 == 0);
  const double mean =
      std::accumulate(log_prior_.begin(), log_prior_.end(), 0.0) / static_cast<double>(log_prior_.size());
  for (double& value : log_prior_) {
    ESPALIER_CHECK(value > 0 && std::isfinite(value));
    value = std::log(value / mean);
  }
  set_theta(theta_);
}

void PlanKernel::set_theta(const Theta& theta) {
  theta_ = theta;
  signal_ = std::exp(theta[kSignal]);
  trend_ = std::exp(theta[kTrend]);
  linear_ = std::exp(theta[kLinear]);
  offset_ = std::exp(theta[kOffset]);
  noise_ = std::exp(theta[kNoise]);
  weight_.resize(n_block());
  prior_.resize(n_block());
  for (int b = 0; b < n_block(); ++b) {
    const double log_length = theta[b % 2 == 0 ? kLengthAttention : kLengthFfn];
    weight_[b] = std::exp(theta[kPower] * log_prior_[static_cast<size_t>(b)] - 2 * log_length);
    prior_[b] = std::exp(log_prior_[static_cast<size_t>(b)]);
  }
}

double PlanKernel::Trend(const Eigen::Ref<const VectorXd>& x) const {
  return std::log(((1 - x.array()) * prior_.array()).sum() + kTrendFloor);
}

VectorXd PlanKernel::TrendGradient(const Eigen::Ref<const VectorXd>& x) const {
  return -prior_ / (((1 - x.array()) * prior_.array()).sum() + kTrendFloor);
}

VectorXd PlanKernel::Trends(const MatrixXd& x) const {
  const VectorXd sums = (1 - x.array()).matrix().transpose() * prior_;
  return (sums.array() + kTrendFloor).log();
}

double PlanKernel::operator()(const Eigen::Ref<const VectorXd>& x, const Eigen::Ref<const VectorXd>& y) const {
  const double r2 = (x - y).cwiseAbs2().dot(weight_);
  const double common = ((1 - x.array()) * (1 - y.array())).sum();
  return trend_ * Trend(x) * Trend(y) + linear_ * common + signal_ * Matern(r2) + offset_;
}

MatrixXd PlanKernel::Matrix(const MatrixXd& x, const MatrixXd& y) const {
  // Squared distances as |x|^2 + |y|^2 - 2 x.y of scaled plans: one matrix product in place of a loop over pairs.
  const VectorXd root = weight_.cwiseSqrt();
  const MatrixXd xs = root.asDiagonal() * x;
  const MatrixXd ys = root.asDiagonal() * y;
  MatrixXd r2 = -2 * (xs.transpose() * ys);
  r2.colwise() += xs.colwise().squaredNorm().transpose();
  r2.rowwise() += ys.colwise().squaredNorm();
  const MatrixXd dropped_x = (1 - x.array()).matrix();
  const MatrixXd dropped_y = (1 - y.array()).matrix();
  MatrixXd k = linear_ * (dropped_x.transpose() * dropped_y);
  k += trend_ * Trends(x) * Trends(y).transpose();
  k.array() += offset_ + signal_ * r2.cwiseMax(0.0).unaryExpr(&Matern).array();
  return k;
}

MatrixXd PlanKernel::Gradient(const Eigen::Ref<const VectorXd>& x, const MatrixXd& y) const {
  const VectorXd trend_gradient = TrendGradient(x);
  const VectorXd trends = Trends(y);
  MatrixXd gradient(n_block(), y.cols());
  for (Index j = 0; j < y.cols(); ++j) {
    const VectorXd difference = x - y.col(j);
    const double slope = signal_ * MaternSlope(difference.cwiseAbs2().dot(weight_));
    gradient.col(j) = 2 * slope * weight_.cwiseProduct(difference) - linear_ * (1 - y.col(j).array()).matrix() +
                      trend_ * trends[j] * trend_gradient;
  }
  return gradient;
}

VectorXd PlanKernel::VarianceGradient(const Eigen::Ref<const VectorXd>& x) const {
  return -2 * linear_ * (1 - x.array()).matrix() + 2 * trend_ * Trend(x) * TrendGradient(x);
}

PlanKernel::Theta PlanKernel::Contract(const MatrixXd& x, const MatrixXd& weights) const {
  Theta sum = {};
  const Index n = x.cols();
  const MatrixXd dropped = (1 - x.array()).matrix();
  const VectorXd trends = Trends(x);
  for (Index j = 0; j < n; ++j) {
    for (Index i = 0; i <= j; ++i) {
      double by_kind[2] = {0, 0};
      double by_power = 0;
      double common = 0;
      for (int b = 0; b < n_block(); ++b) {
        const double difference = x(b, i) - x(b, j);
        if (difference != 0) {
          const double part = weight_[b] * difference * difference;
          by_kind[b % 2] += part;
          by_power += part * log_prior_[static_cast<size_t>(b)];
        }
        common += dropped(b, i) * dropped(b, j);
      }
      const double r2 = by_kind[0] + by_kind[1];
      const double slope = signal_ * MaternSlope(r2);
      const double w = (i == j ? 1 : 2) * weights(i, j);
      sum[kSignal] += w * signal_ * Matern(r2);
      sum[kLengthAttention] += w * slope * -2 * by_kind[0];
      sum[kLengthFfn] += w * slope * -2 * by_kind[1];
      sum[kPower] += w * slope * by_power;
      sum[kTrend] += w * trend_ * trends[i] * trends[j];
      sum[kLinear] += w * linear_ * common;
      sum[kOffset] += w * offset_;
    }
    sum[kNoise] += weights(j, j) * noise_;
  }
  return sum;
}

PlanKernel::Expansion::Expansion(const PlanKernel& kernel, const MatrixXd& y, const VectorXd& weight)
    : prior_(kernel.prior_),
      root_(kernel.weight_.cwiseSqrt()),
      scaled_y_(root_.asDiagonal() * y),
      y_squares_(scaled_y_.colwise().squaredNorm()),
      weight_(kernel.signal_ * weight),
      by_linear_(kernel.linear_ * (1 - y.array()).matrix() * weight),
      by_trend_(kernel.trend_ * kernel.Trends(y).dot(weight)),
      constant_(kernel.offset_ * weight.sum()) {
  ESPALIER_CHECK(y.cols() == weight.size());
}

VectorXd PlanKernel::Expansion::operator()(const MatrixXd& x, MatrixXd* gradient) const {
  constexpr Index kAtOnce = 64;  // so that what lies between stays in the cache
  VectorXd value(x.cols());
  if (gradient != nullptr) {
    gradient->resize(x.rows(), x.cols());
  }
  for (Index first = 0; first < x.cols(); first += kAtOnce) {
    const Index n = std::min(kAtOnce, x.cols() - first);
    const auto at = x.middleCols(first, n);
    const MatrixXd scaled_x = root_.asDiagonal() * at;
    MatrixXd s = -2 * (scaled_y_.transpose() * scaled_x);  // [y][x]
    s.colwise() += y_squares_;
    s.rowwise() += scaled_x.colwise().squaredNorm();
    s = kRoot5 * s.cwiseMax(0.0).cwiseSqrt();
    const MatrixXd decay = (-s.array()).exp();
    const VectorXd sums = (1 - at.array()).matrix().transpose() * prior_;  // inside the trend's logarithm
    const VectorXd trend = by_trend_ * (sums.array() + kTrendFloor).log();
    value.segment(first, n) =
        (weight_.transpose() * ((1 + s.array() + s.array().square() / 3) * decay.array()).matrix()).transpose() +
        (1 - at.array()).matrix().transpose() * by_linear_ + trend;
    value.segment(first, n).array() += constant_;
    if (gradient != nullptr) {
      // d matern / d x = slope(r^2) * 2 w (x - y): the sum over y is one matrix product more.
      const MatrixXd slope = weight_.asDiagonal() * (-5.0 / 3.0 * (1 + s.array()) * decay.array()).matrix();
      auto by_x = gradient->middleCols(first, n);
      by_x = scaled_x.array().rowwise() * slope.colwise().sum().array();
      by_x -= scaled_y_ * slope;
      by_x = root_.asDiagonal() * by_x;
      by_x.colwise() -= by_linear_;
      by_x -= prior_ * (by_trend_ / (sums.array() + kTrendFloor)).matrix().transpose();
    }
  }
  return value;
}

}  // namespace espalier
