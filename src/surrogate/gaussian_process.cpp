#include "surrogate/gaussian_process.h"

#include <fmt/format.h>

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "base/check.h"

namespace espalier {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

namespace {

using Lower = Eigen::TriangularView<const MatrixXd, Eigen::Lower>;
Lower Triangle(const MatrixXd& m) { return m.triangularView<Eigen::Lower>(); }

VectorXd Solve(const MatrixXd& lower, const VectorXd& b) {
  VectorXd x = Triangle(lower).solve(b);
  lower.triangularView<Eigen::Lower>().transpose().solveInPlace(x);
  return x;
}

}  // namespace

Status GaussianProcess::SetData(MatrixXd x, VectorXd y) {
  if (x.cols() == 0 || x.cols() != y.size() || x.rows() != kernel_.n_block()) {
    return InvalidArgument(
        fmt::format("surrogate: expected plans of {} blocks with one output each, found {} x {} and {}",
                    kernel_.n_block(), x.rows(), x.cols(), y.size()));
  }
  if (!x.allFinite() || !y.allFinite()) {
    return InvalidArgument("surrogate: expected finite keep fractions and outputs");
  }
  x_ = std::move(x);
  y_ = std::move(y);
  offset_ = y_.mean();
  const double variance = (y_.array() - offset_).square().mean();
  scale_ = variance > 0 ? std::sqrt(variance) : 1;
  return Factor();
}

bool GaussianProcess::TryFactor(double jitter) {
  MatrixXd covariance = kernel_.Matrix(x_, x_);
  covariance.diagonal().array() += kernel_.noise() + jitter * covariance.diagonal().mean();
  const Eigen::LLT<MatrixXd> factor(covariance);
  if (factor.info() != Eigen::Success) {
    return false;
  }
  lower_ = factor.matrixL();
  jitter_ = jitter;
  return true;
}

Status GaussianProcess::Factor() {
  for (double jitter = 0; jitter <= 1e-2; jitter = jitter == 0 ? 1e-10 : 10 * jitter) {
    if (TryFactor(jitter)) {
      SolveForMean();
      return Status::Ok();
    }
  }
  return Unsupported(fmt::format("surrogate: the covariance of {} plans cannot be factored", x_.cols()));
}

Status GaussianProcess::AddRow(const VectorXd& x, double y) {
  ESPALIER_CHECK(n() > 0 && x.size() == kernel_.n_block());
  if (!x.allFinite() || !std::isfinite(y)) {
    return InvalidArgument("surrogate: expected finite keep fractions and a finite output");
  }
  const Index size = n();
  const VectorXd covariance = kernel_.Matrix(x_, x).col(0);
  const VectorXd row = Triangle(lower_).solve(covariance);
  x_.conservativeResize(Eigen::NoChange, size + 1);
  x_.col(size) = x;
  y_.conservativeResize(size + 1);
  y_[size] = y;
  const double left = kernel_.Variance(x) * (1 + jitter_) + kernel_.noise() - row.squaredNorm();
  if (left <= 1e-12) {
    return Factor();  // nearly a copy of a row that is there
  }
  lower_.conservativeResize(size + 1, size + 1);
  lower_.col(size).setZero();
  lower_.row(size).head(size) = row.transpose();
  lower_(size, size) = std::sqrt(left);
  SolveForMean();
  return Status::Ok();
}

void GaussianProcess::SolveForMean() {
  alpha_ = Solve(lower_, Standardised());
  mean_ = PlanKernel::Expansion(kernel_, x_, alpha_);
}

double GaussianProcess::LogMarginalLikelihood(PlanKernel::Theta* gradient) const {
  ESPALIER_CHECK(n() > 0);
  const VectorXd y = Standardised();
  const double value = -0.5 * y.dot(alpha_) - lower_.diagonal().array().log().sum() -
                       0.5 * static_cast<double>(n()) * std::log(2 * std::numbers::pi);
  if (gradient != nullptr) {
    // 1/2 tr((alpha alpha' - K^-1) dK): R&W 5.9.
    MatrixXd inverse = MatrixXd::Identity(n(), n());
    Triangle(lower_).solveInPlace(inverse);
    inverse = inverse.transpose() * inverse;
    *gradient = kernel_.Contract(x_, 0.5 * (alpha_ * alpha_.transpose() - inverse));
  }
  return value;
}

Status GaussianProcess::FitHyperParameters(int steps) {
  ESPALIER_CHECK(n() > 0);
  using Theta = PlanKernel::Theta;
  const Theta least = PlanKernel::Least();
  const Theta most = PlanKernel::Most();
  Theta best = kernel_.theta();
  Theta gradient;
  double best_value = LogMarginalLikelihood(&gradient);
  // Rprop (Riedmiller and Braun 1993): steps by the gradient's sign, so scales do not matter, and no line search.
  Theta step;
  step.fill(0.2);
  Theta theta = best;
  Theta previous = {};
  for (int i = 0; i < steps; ++i) {
    double largest = 0;
    for (size_t h = 0; h < theta.size(); ++h) {
      const double agreement = gradient[h] * previous[h];
      step[h] = std::clamp(step[h] * (agreement > 0 ? 1.3 : agreement < 0 ? 0.5 : 1.0), 1e-3, 1.0);
      const double moved = std::clamp(theta[h] + (gradient[h] > 0   ? step[h]
                                                  : gradient[h] < 0 ? -step[h]
                                                                    : 0),
                                      least[h], most[h]);
      largest = std::max(largest, std::abs(moved - theta[h]));
      theta[h] = moved;
      previous[h] = agreement < 0 ? 0 : gradient[h];
    }
    if (largest < 5e-3) {
      break;
    }
    kernel_.set_theta(theta);
    ESPALIER_RETURN_IF_ERROR(Factor());
    const double value = LogMarginalLikelihood(&gradient);
    if (value > best_value) {
      best_value = value;
      best = theta;
    }
  }
  kernel_.set_theta(best);
  return Factor();
}

VectorXd GaussianProcess::Mean(const MatrixXd& x) const { return MeanAndGradient(x, nullptr); }

VectorXd GaussianProcess::MeanAndGradient(const MatrixXd& x, MatrixXd* gradient) const {
  ESPALIER_CHECK(n() > 0 && x.rows() == kernel_.n_block());
  const VectorXd mean = (scale_ * mean_(x, gradient)).array() + offset_;
  if (gradient != nullptr) {
    *gradient *= scale_;
  }
  return mean;
}

GaussianProcess::Prediction GaussianProcess::Predict(const MatrixXd& x) const {
  ESPALIER_CHECK(n() > 0);
  const MatrixXd covariance = kernel_.Matrix(x_, x);
  Prediction prediction;
  prediction.mean = (scale_ * (covariance.transpose() * alpha_)).array() + offset_;
  const MatrixXd solved = Triangle(lower_).solve(covariance);
  prediction.variance.resize(x.cols());
  for (Index j = 0; j < x.cols(); ++j) {
    const double variance = kernel_.Variance(x.col(j)) - solved.col(j).squaredNorm();
    prediction.variance[j] = scale_ * scale_ * std::max(0.0, variance);
  }
  return prediction;
}

GaussianProcess::Prediction GaussianProcess::LeaveOneOut() const {
  ESPALIER_CHECK(n() > 0);
  MatrixXd inverse = MatrixXd::Identity(n(), n());
  Triangle(lower_).solveInPlace(inverse);
  const VectorXd precision = inverse.colwise().squaredNorm();  // diagonal of the covariance's inverse
  return {y_ - scale_ * alpha_.cwiseQuotient(precision), scale_ * scale_ * precision.cwiseInverse()};
}

GaussianProcess::Slopes GaussianProcess::Gradients(const VectorXd& x) const {
  ESPALIER_CHECK(n() > 0 && x.size() == kernel_.n_block());
  const MatrixXd by_x = kernel_.Gradient(x, x_);
  const VectorXd weights = Solve(lower_, kernel_.Matrix(x_, x).col(0));
  return {scale_ * (by_x * alpha_), scale_ * scale_ * (kernel_.VarianceGradient(x) - 2 * (by_x * weights))};
}

}  // namespace espalier
