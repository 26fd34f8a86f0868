#include "importance/loss_predictor.h"

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <cmath>

namespace espalier {

LossPredictor::LossPredictor(const Archive& archive, int n_block) : weight_(static_cast<size_t>(n_block)) {
  constexpr double kFloor = 1e-3;
  constexpr double kRidge = 0.3;  // in rows: little against hundreds of plans, enough where a block never went
  const Eigen::Index n = n_block + 1;
  Eigen::MatrixXd gram = Eigen::MatrixXd::Identity(n, n) * kRidge;
  Eigen::VectorXd moment = Eigen::VectorXd::Zero(n);
  Eigen::VectorXd x(n);
  for (const ArchiveRow& row : archive.rows()) {
    if (!archive.whole(row)) {
      continue;
    }
    for (int b = 0; b < n_block; ++b) {
      x[b] = row.plan.kept({b}) ? 0 : 1;
    }
    x[n_block] = 1;
    gram += x * x.transpose();
    moment += x * std::log(archive.Loss(row) + kFloor);
  }
  const Eigen::VectorXd solution = gram.ldlt().solve(moment);
  for (int b = 0; b < n_block; ++b) {
    weight_[static_cast<size_t>(b)] = solution[b];
  }
}

double LossPredictor::LogRatio(const Plan& from, const Plan& to) const {
  double log_ratio = 0;
  for (int b = 0; b < from.n_block(); ++b) {
    log_ratio += weight_[static_cast<size_t>(b)] * (static_cast<int>(from.kept({b})) - static_cast<int>(to.kept({b})));
  }
  return log_ratio;
}

}  // namespace espalier
