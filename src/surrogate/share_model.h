// What share of a plan's loss falls on the first windows of a text: from it, the loss of a plan of which only those
// were measured. Shares differ from plan to plan by a few percent, and alike plans have alike ones.
#pragma once

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <optional>

#include "model/plan.h"
#include "profile/archive.h"
#include "surrogate/plan_kernel.h"

namespace espalier {

// A Gaussian process for each number of windows, all with the same covariance. Thread rule: const calls from any
// thread.
class ShareModel {
 public:
  // Learns from the whole rows of `archive` but for the dense plan, evenly thinned to 400. Length scales are those of
  // `kernel`, which was fitted to the losses. Without rows every window is taken to have the same share.
  ShareModel(const Archive& archive, const PlanKernel& kernel);

  struct Guess {
    double log_mean = 0;  // of ln(share)
    double log_sd = 0;
  };
  // REQUIRES: 0 < windows < those of the archive's set.
  Guess Predict(const Plan& plan, int64_t windows) const;

 private:
  PlanKernel kernel_;
  int64_t n_windows_;
  Eigen::MatrixXd x_;
  Eigen::LLT<Eigen::MatrixXd> factor_;
  Eigen::MatrixXd weights_;  // [row][windows - 1]: covariance^-1 times standardised shares
  Eigen::VectorXd mean_, sd_;
};

}  // namespace espalier
