// A guess at the loss of plans that nobody measured, with its uncertainty: a Gaussian process on the archive.
#pragma once

#include <span>
#include <vector>

#include "base/status.h"
#include "model/plan.h"
#include "profile/archive.h"
#include "surrogate/gaussian_process.h"

namespace espalier {

// Works on ln(loss + kFloor): the dense plan has loss 0, and policies are judged by ratios.
class LossSurrogate {
 public:
  static constexpr double kFloor = 1e-3;

  // The whole rows of `archive` but for the dense plan. What is known beforehand of a block is the loss of dropping it
  // alone, where that was measured; else the mean of those that were. At most `most_rows`, those of the least loss for
  // the blocks they drop first: far from every front no guess is needed.
  // kInvalidArgument if nothing was measured.
  static Result<LossSurrogate> Fit(const Archive& archive, int n_layer, int steps = 60, size_t most_rows = 1500);

  struct Guess {
    double loss = 0;      // nats per token: the median
    double log_mean = 0;  // of ln(loss + kFloor)
    double log_sd = 0;    // of the function
  };
  std::vector<Guess> Predict(std::span<const Plan> plans) const;
  Guess Predict(const Plan& plan) const { return Predict(std::span(&plan, 1)).front(); }

  // Guess::log_mean alone, at a fraction of the cost.
  std::vector<double> LogMeans(std::span<const Plan> plans) const;

  // Guess::log_mean at any keep fractions, by column, and its derivative by each of them into `by_keep`.
  Eigen::VectorXd MeansAndSlopes(const Eigen::MatrixXd& keep, Eigen::MatrixXd* by_keep) const {
    return process_.MeanAndGradient(keep, by_keep);
  }

  // A measurement that was made since. Hyper-parameters stay.
  Status Add(const Plan& plan, double loss);

  const GaussianProcess& process() const { return process_; }

 private:
  explicit LossSurrogate(GaussianProcess process) : process_(std::move(process)) {}

  GaussianProcess process_;
};

// Plans as columns of keep fractions; of no plans a matrix without rows.
Eigen::MatrixXd KeepMatrix(std::span<const Plan> plans);

}  // namespace espalier
