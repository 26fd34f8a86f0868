#include "surrogate/share_model.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/check.h"
#include "surrogate/loss_surrogate.h"

namespace espalier {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

namespace {

constexpr size_t kMostRows = 400;
// Of the shares' variance, what alike plans do not tell: chosen on the reference models.
constexpr double kNoise = 0.03;
constexpr double kLeastSd = 0.003;

// The length scales of `kernel`, for standardised outputs without a trend.
PlanKernel WithoutTrend(const PlanKernel& kernel) {
  PlanKernel::Theta theta = kernel.theta();
  theta[PlanKernel::kSignal] = 0;
  theta[PlanKernel::kTrend] = theta[PlanKernel::kLinear] = -30;
  theta[PlanKernel::kOffset] = 0;
  theta[PlanKernel::kNoise] = std::log(kNoise);
  PlanKernel result = kernel;
  result.set_theta(theta);
  return result;
}

std::vector<const ArchiveRow*> RowsOf(const Archive& archive) {
  std::vector<const ArchiveRow*> rows;
  for (const ArchiveRow& row : archive.rows()) {
    if (archive.whole(row) && !row.plan.dense() && archive.Loss(row) > 0) {
      rows.push_back(&row);
    }
  }
  const size_t step = (rows.size() + kMostRows - 1) / kMostRows;
  std::vector<const ArchiveRow*> thinned;
  for (size_t i = 0; i < rows.size(); i += step) {
    thinned.push_back(rows[i]);
  }
  return thinned;
}

// ln of the share of the first windows, by number of windows - 1.
VectorXd LogShares(const ArchiveRow& row) {
  VectorXd sums(static_cast<Index>(row.windows.size()));
  double sum = 0;
  for (size_t w = 0; w < row.windows.size(); ++w) {
    sum += row.windows[w].kl;
    sums[static_cast<Index>(w)] = std::max(sum, 1e-12);
  }
  return (sums / sum).head(sums.size() - 1).array().log();
}

}  // namespace

ShareModel::ShareModel(const Archive& archive, const PlanKernel& kernel)
    : kernel_(WithoutTrend(kernel)), n_windows_(archive.set().n_windows) {
  const std::vector<const ArchiveRow*> rows = RowsOf(archive);
  if (rows.empty() || n_windows_ < 2) {
    return;
  }
  const auto n = static_cast<Index>(rows.size());
  std::vector<Plan> plans;
  MatrixXd shares(n, n_windows_ - 1);
  for (Index i = 0; i < n; ++i) {
    plans.push_back(rows[static_cast<size_t>(i)]->plan);
    shares.row(i) = LogShares(*rows[static_cast<size_t>(i)]).transpose();
  }
  x_ = KeepMatrix(plans);
  mean_ = shares.colwise().mean().transpose();
  shares.rowwise() -= mean_.transpose();
  sd_ = (shares.colwise().squaredNorm().transpose() / static_cast<double>(n)).cwiseSqrt().cwiseMax(kLeastSd);
  MatrixXd covariance = kernel_.Matrix(x_, x_);
  covariance.diagonal().array() += kernel_.noise();
  factor_.compute(covariance);
  ESPALIER_CHECK(factor_.info() == Eigen::Success);  // the noise sees to it
  weights_ = factor_.solve(shares * sd_.cwiseInverse().asDiagonal());
}

ShareModel::Guess ShareModel::Predict(const Plan& plan, int64_t windows) const {
  ESPALIER_CHECK(0 < windows && windows < n_windows_);
  if (x_.cols() == 0) {
    return {std::log(static_cast<double>(windows) / static_cast<double>(n_windows_)), 0.3};
  }
  const Index w = windows - 1;
  const MatrixXd x = KeepMatrix(std::span(&plan, 1));
  const VectorXd covariance = kernel_.Matrix(x_, x).col(0);
  const double variance =
      kernel_.Variance(x.col(0)) + kernel_.noise() - factor_.matrixL().solve(covariance).squaredNorm();
  return {mean_[w] + sd_[w] * covariance.dot(weights_.col(w)),
          std::max(kLeastSd, sd_[w] * std::sqrt(std::max(variance, 0.0)))};
}

}  // namespace espalier
