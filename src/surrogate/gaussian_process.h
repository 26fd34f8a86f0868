// Exact Gaussian-process regression over plans (Rasmussen and Williams, algorithm 2.1), with closed-form gradients of
// mean and variance, and hyper-parameters by marginal likelihood.
//
// Cost: a fit of n plans is n^3 / 3 multiplications for each step of the optimiser, a new row n^2, a prediction n for
// the mean and n^2 for the variance.
#pragma once

#include <Eigen/Core>
#include <utility>

#include "base/status.h"
#include "surrogate/plan_kernel.h"

namespace espalier {

// Thread rule: const calls from any thread.
class GaussianProcess {
 public:
  explicit GaussianProcess(PlanKernel kernel) : kernel_(std::move(kernel)) {}

  // Takes the data: plans as columns, one output each. Outputs are standardised inside.
  // kInvalidArgument if there are none or they are not finite; kUnsupported if the covariance cannot be factored even
  // with jitter (which says that it is not one).
  Status SetData(Eigen::MatrixXd x, Eigen::VectorXd y);
  // One more plan; hyper-parameters and scales of the outputs stay. The same as SetData with it, at n^2.
  Status AddRow(const Eigen::VectorXd& x, double y);
  // Ascends the log marginal likelihood, `steps` at most, from the present hyper-parameters. REQUIRES: data.
  Status FitHyperParameters(int steps);

  // ln p(y | x, theta) of the standardised outputs, and its derivative by theta. REQUIRES: data.
  double LogMarginalLikelihood(PlanKernel::Theta* gradient = nullptr) const;

  struct Prediction {
    Eigen::VectorXd mean;      // in units of the outputs
    Eigen::VectorXd variance;  // of the function, without noise; never negative
  };
  // For every column of x. REQUIRES: data.
  Prediction Predict(const Eigen::MatrixXd& x) const;
  Eigen::VectorXd Mean(const Eigen::MatrixXd& x) const;
  // The same, and the derivative of each mean by its x into the columns of `gradient`: together for many x at a
  // fraction of the cost of Gradients.
  Eigen::VectorXd MeanAndGradient(const Eigen::MatrixXd& x, Eigen::MatrixXd* gradient) const;
  // Derivatives of mean and variance by x.
  struct Slopes {
    Eigen::VectorXd mean;
    Eigen::VectorXd variance;
  };
  Slopes Gradients(const Eigen::VectorXd& x) const;

  // What the process would say of each row's output if it did not have that row, hyper-parameters as they are (R&W
  // 5.12); variances with noise, as the outputs have it. REQUIRES: data. Cost: n^3 / 3.
  Prediction LeaveOneOut() const;

  const PlanKernel& kernel() const { return kernel_; }
  const Eigen::MatrixXd& x() const { return x_; }
  const Eigen::VectorXd& y() const { return y_; }
  Eigen::Index n() const { return x_.cols(); }
  // Of the outputs' noise, in their units.
  double noise_variance() const { return kernel_.noise() * scale_ * scale_; }

 private:
  Status Factor();
  // From lower_ and the outputs.
  void SolveForMean();
  // Factors the covariance at the present hyper-parameters; false if it cannot be done.
  bool TryFactor(double jitter);
  Eigen::VectorXd Standardised() const { return (y_.array() - offset_) / scale_; }

  PlanKernel kernel_;
  Eigen::MatrixXd x_;
  Eigen::VectorXd y_;
  double offset_ = 0;
  double scale_ = 1;
  double jitter_ = 0;           // what had to be added to the diagonal, relative to it; 0 as a rule
  Eigen::MatrixXd lower_;       // Cholesky factor of the covariance, noise included
  Eigen::VectorXd alpha_;       // covariance^-1 times the standardised outputs
  PlanKernel::Expansion mean_;  // of the standardised outputs
};

}  // namespace espalier
