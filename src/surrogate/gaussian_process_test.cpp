#include "surrogate/gaussian_process.h"

#include <gtest/gtest.h>

#include <Eigen/LU>
#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>
#include <vector>

#include "surrogate/archive_surrogate.h"
#include "surrogate/loss_surrogate.h"
#include "surrogate/share_model.h"

namespace espalier {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int kBlocks = 6;

std::vector<double> Prior() { return {0.5, 2, 1, 0.25, 3, 1}; }

MatrixXd RandomPlans(Index n, uint32_t seed) {
  std::mt19937 random(seed);
  return MatrixXd::NullaryExpr(kBlocks, n, [&] { return static_cast<double>(random() % 1001) / 1000; });
}

VectorXd Rough(const MatrixXd& x) {
  VectorXd y(x.cols());
  for (Index j = 0; j < x.cols(); ++j) {
    y[j] = 2 + std::sin(3 * x.col(j).sum()) - x(0, j) * x(3, j) + 0.5 * x(5, j);
  }
  return y;
}

// A kernel none of whose hyper-parameters is what a fit starts from.
PlanKernel Kernel() {
  PlanKernel kernel(Prior());
  PlanKernel::Theta theta = PlanKernel::Start();
  for (size_t h = 0; h < theta.size(); ++h) {
    theta[h] += 0.1 * static_cast<double>(h) - 0.2;
  }
  theta[PlanKernel::kNoise] = std::log(0.01);
  kernel.set_theta(theta);
  return kernel;
}

TEST(PlanKernel, IsTheFormula) {
  const PlanKernel kernel = Kernel();
  const MatrixXd x = RandomPlans(2, 1);
  double mean = 0;
  for (const double u : Prior()) {
    mean += u / kBlocks;
  }
  double r2 = 0;
  double common = 0;
  double sums[2] = {0, 0};
  const auto& theta = kernel.theta();
  for (int b = 0; b < kBlocks; ++b) {
    const double u = Prior()[static_cast<size_t>(b)] / mean;
    const double length = std::exp(theta[b % 2 == 0 ? PlanKernel::kLengthAttention : PlanKernel::kLengthFfn]);
    r2 += std::pow(u, theta[PlanKernel::kPower]) / (length * length) * std::pow(x(b, 0) - x(b, 1), 2);
    common += (1 - x(b, 0)) * (1 - x(b, 1));
    sums[0] += u * (1 - x(b, 0));
    sums[1] += u * (1 - x(b, 1));
  }
  const double s = std::sqrt(5 * r2);
  const double expected = std::exp(theta[PlanKernel::kTrend]) * std::log(sums[0] + 0.1) * std::log(sums[1] + 0.1) +
                          std::exp(theta[PlanKernel::kLinear]) * common + std::exp(theta[PlanKernel::kOffset]) +
                          std::exp(theta[PlanKernel::kSignal]) * (1 + s + 5 * r2 / 3) * std::exp(-s);
  EXPECT_NEAR(kernel(x.col(0), x.col(1)), expected, 1e-12);
  EXPECT_NEAR(kernel.Matrix(x, x)(0, 1), expected, 1e-12);
  EXPECT_NEAR(kernel.Matrix(x, x)(1, 1), kernel.Variance(x.col(1)), 1e-12);
}

// Posterior, likelihood: by inverting the covariance, as the textbook writes them.
TEST(GaussianProcess, IsTheClosedForm) {
  const MatrixXd x = RandomPlans(12, 2);
  const VectorXd y = Rough(x);
  GaussianProcess process{Kernel()};
  ASSERT_TRUE(process.SetData(x, y).ok());
  const double mean = y.mean();
  const double scale = std::sqrt((y.array() - mean).square().mean());
  const VectorXd z = (y.array() - mean) / scale;
  MatrixXd covariance = process.kernel().Matrix(x, x);
  covariance.diagonal().array() += process.kernel().noise();
  const MatrixXd inverse = covariance.inverse();

  const MatrixXd at = RandomPlans(5, 3);
  const MatrixXd cross = process.kernel().Matrix(x, at);
  const auto prediction = process.Predict(at);
  for (Index j = 0; j < at.cols(); ++j) {
    EXPECT_NEAR(prediction.mean[j], mean + scale * cross.col(j).dot(inverse * z), 1e-9);
    EXPECT_NEAR(prediction.variance[j],
                scale * scale * (process.kernel().Variance(at.col(j)) - cross.col(j).dot(inverse * cross.col(j))),
                1e-9);
  }
  EXPECT_LT((process.Mean(at) - prediction.mean).norm(), 1e-9);
  const double likelihood =
      -0.5 * z.dot(inverse * z) - 0.5 * std::log(covariance.determinant()) - 6 * std::log(2 * std::numbers::pi);
  EXPECT_NEAR(process.LogMarginalLikelihood(), likelihood, 1e-8);
}

TEST(GaussianProcess, GradientsAreThoseOfFiniteDifferences) {
  const MatrixXd x = RandomPlans(15, 4);
  GaussianProcess process{Kernel()};
  ASSERT_TRUE(process.SetData(x, Rough(x)).ok());
  constexpr double kStep = 1e-5;
  for (uint32_t seed = 5; seed < 10; ++seed) {
    const VectorXd at = RandomPlans(1, seed).col(0);
    const auto slopes = process.Gradients(at);
    for (int b = 0; b < kBlocks; ++b) {
      MatrixXd around(kBlocks, 2);
      around.colwise() = at;
      around(b, 0) += kStep;
      around(b, 1) -= kStep;
      const auto prediction = process.Predict(around);
      EXPECT_NEAR(slopes.mean[b], (prediction.mean[0] - prediction.mean[1]) / (2 * kStep), 1e-5);
      EXPECT_NEAR(slopes.variance[b], (prediction.variance[0] - prediction.variance[1]) / (2 * kStep), 1e-5);
    }
  }
  // Many at once: the same, one column each, over more columns than are computed together.
  const MatrixXd many = RandomPlans(150, 11);
  MatrixXd gradient;
  const VectorXd means = process.MeanAndGradient(many, &gradient);
  const auto prediction = process.Predict(many);
  for (Index j = 0; j < many.cols(); ++j) {
    EXPECT_NEAR(means[j], prediction.mean[j], 1e-9);
    EXPECT_LT((gradient.col(j) - process.Gradients(many.col(j)).mean).norm(), 1e-9);
  }
  // At a plan of the data the distance is 0, where its root has no derivative.
  process.MeanAndGradient(x, &gradient);
  EXPECT_TRUE(gradient.allFinite());
  EXPECT_TRUE(process.Gradients(x.col(3)).mean.allFinite());
}

TEST(GaussianProcess, LeaveOneOutIsWhatTheOtherRowsSay) {
  constexpr Index kRows = 14;
  const MatrixXd x = RandomPlans(kRows, 12);
  const VectorXd y = Rough(x);
  GaussianProcess process{Kernel()};
  ASSERT_TRUE(process.SetData(x, y).ok());
  const double mean = y.mean();
  const double scale = std::sqrt((y.array() - mean).square().mean());
  const auto left_out = process.LeaveOneOut();
  for (Index i = 0; i < kRows; ++i) {
    MatrixXd others(kBlocks, kRows - 1);
    VectorXd z(kRows - 1);
    for (Index j = 0; j < kRows - 1; ++j) {
      others.col(j) = x.col(j + (j >= i ? 1 : 0));
      z[j] = (y[j + (j >= i ? 1 : 0)] - mean) / scale;
    }
    MatrixXd covariance = process.kernel().Matrix(others, others);
    covariance.diagonal().array() += process.kernel().noise();
    const MatrixXd inverse = covariance.inverse();
    const VectorXd cross = process.kernel().Matrix(others, x.col(i)).col(0);
    EXPECT_NEAR(left_out.mean[i], mean + scale * cross.dot(inverse * z), 1e-8);
    EXPECT_NEAR(
        left_out.variance[i],
        scale * scale * (process.kernel().Variance(x.col(i)) + process.kernel().noise() - cross.dot(inverse * cross)),
        1e-8);
  }
}

TEST(GaussianProcess, LikelihoodsGradientIsThatOfFiniteDifferences) {
  const MatrixXd x = RandomPlans(15, 6);
  const VectorXd y = Rough(x);
  PlanKernel kernel = Kernel();
  GaussianProcess process{kernel};
  ASSERT_TRUE(process.SetData(x, y).ok());
  PlanKernel::Theta gradient;
  process.LogMarginalLikelihood(&gradient);
  for (size_t h = 0; h < gradient.size(); ++h) {
    double value[2];
    for (int side = 0; side < 2; ++side) {
      PlanKernel::Theta theta = Kernel().theta();
      theta[h] += side == 0 ? 1e-5 : -1e-5;
      kernel.set_theta(theta);
      GaussianProcess moved{kernel};
      ASSERT_TRUE(moved.SetData(x, y).ok());
      value[side] = moved.LogMarginalLikelihood();
    }
    EXPECT_NEAR(gradient[h], (value[0] - value[1]) / 2e-5, 1e-4 * (1 + std::abs(gradient[h]))) << h;
  }
}

TEST(GaussianProcess, FittingRaisesTheLikelihoodAndTheGuesses) {
  const MatrixXd x = RandomPlans(60, 7);
  const VectorXd y = Rough(x);
  GaussianProcess process{PlanKernel(Prior())};
  ASSERT_TRUE(process.SetData(x, y).ok());
  const MatrixXd at = RandomPlans(40, 8);
  const double before = process.LogMarginalLikelihood();
  const double off_before = (process.Mean(at) - Rough(at)).norm();
  ASSERT_TRUE(process.FitHyperParameters(60).ok());
  EXPECT_GT(process.LogMarginalLikelihood(), before + 5);
  EXPECT_LT((process.Mean(at) - Rough(at)).norm(), off_before);
}

TEST(GaussianProcess, ARowAddedIsARowThatWasThere) {
  const MatrixXd x = RandomPlans(20, 9);
  VectorXd y = Rough(x);
  GaussianProcess whole{Kernel()};
  ASSERT_TRUE(whole.SetData(x, y).ok());
  GaussianProcess grown{Kernel()};
  ASSERT_TRUE(grown.SetData(x.leftCols(19), y.head(19)).ok());
  ASSERT_TRUE(grown.AddRow(x.col(19), y[19]).ok());
  const MatrixXd at = RandomPlans(6, 10);
  // Scales of the outputs stay as they were, which moves figures a little; the covariance does not depend on them.
  EXPECT_LT((whole.Predict(at).mean - grown.Predict(at).mean).norm(), 1e-2);
  GaussianProcess same{Kernel()};
  ASSERT_TRUE(same.SetData(x.leftCols(19), y.head(19)).ok());
  // With an output at the old mean nothing about scales is in doubt: the variance must shrink to about the noise.
  ASSERT_TRUE(same.AddRow(x.col(19), y.head(19).mean()).ok());
  EXPECT_LT(same.Predict(x.col(19)).variance[0], 1.01 * same.noise_variance());
}

TEST(GaussianProcess, CopiesOfAPlanAreNoObstacle) {
  MatrixXd x = RandomPlans(8, 11);
  x.col(5) = x.col(2);
  PlanKernel kernel = Kernel();
  PlanKernel::Theta theta = kernel.theta();
  theta[PlanKernel::kNoise] = std::log(1e-300);
  kernel.set_theta(theta);
  GaussianProcess process{kernel};
  ASSERT_TRUE(process.SetData(x, Rough(x)).ok());
  ASSERT_TRUE(process.AddRow(x.col(1), Rough(x)[1]).ok());
  EXPECT_TRUE(process.Mean(x).allFinite());
  EXPECT_NEAR(process.Mean(x)[4], Rough(x)[4], 1e-2);
}

TEST(GaussianProcess, RefusesWhatIsNoData) {
  GaussianProcess process{Kernel()};
  EXPECT_FALSE(process.SetData(MatrixXd(kBlocks, 0), VectorXd()).ok());
  EXPECT_FALSE(process.SetData(MatrixXd::Ones(4, 2), VectorXd::Ones(2)).ok());
  VectorXd y = VectorXd::Ones(2);
  y[1] = NAN;
  const Status status = process.SetData(MatrixXd::Ones(kBlocks, 2), y);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.message().find("finite"), std::string::npos);
}

// Losses that add up but for one pair, of all plans that drop up to three blocks.
Archive ArchiveOf(int n_layer, int step) {
  MeasurementSet set;
  set.corpus = "numbers";
  set.window_tokens = set.n_windows = set.tokens_scored = 1;
  Archive archive(set);
  const int n = 2 * n_layer;
  int i = 0;
  for (uint32_t bits = 1; bits < (1U << n); ++bits) {
    const int dropped = __builtin_popcount(bits);
    if (dropped > 3 || (dropped > 1 && ++i % step != 0)) {
      continue;
    }
    Plan plan = Plan::Dense(n_layer);
    double loss = (bits & 6U) == 6U ? 0.3 : 0;
    for (int b = 0; b < n; ++b) {
      if ((bits >> b & 1U) != 0) {
        plan.Drop({b});
        loss += 0.05 * (1 + b % 4);
      }
    }
    const WindowLoss window = {loss, 1};
    archive.Add(plan, 0, {&window, 1});
  }
  return archive;
}

TEST(LossSurrogate, GuessesWhatWasNotMeasured) {
  const Archive some = ArchiveOf(4, 3);
  const Archive all = ArchiveOf(4, 1);
  const auto surrogate = LossSurrogate::Fit(some, 4);
  ASSERT_TRUE(surrogate.ok()) << surrogate.status().message();
  std::vector<double> off;  // ratios, the smaller below
  std::vector<Plan> plans;
  for (const ArchiveRow& row : all.rows()) {
    const LossSurrogate::Guess guess = surrogate->Predict(row.plan);
    off.push_back(std::max(guess.loss / all.Loss(row), all.Loss(row) / guess.loss));
    plans.push_back(row.plan);
  }
  std::sort(off.begin(), off.end());
  EXPECT_LT(off[off.size() * 9 / 10], 1.25);
  EXPECT_LT(off[off.size() / 2], 1.05);
  EXPECT_EQ(surrogate->Predict(Plan::Dense(4)).loss, 0);
  const std::vector<double> means = surrogate->LogMeans(plans);
  EXPECT_NEAR(means[7], surrogate->Predict(plans[7]).log_mean, 1e-9);
  EXPECT_TRUE(surrogate->Predict(std::vector<Plan>()).empty());
  EXPECT_TRUE(surrogate->LogMeans(std::vector<Plan>()).empty());
}

TEST(ArchiveSurrogate, TakesInWhatTheArchiveGains) {
  const Archive all = ArchiveOf(4, 1);
  Archive growing(all.set());
  ArchiveSurrogate surrogate(&growing, 4);
  for (size_t i = 0; i < all.rows().size(); ++i) {
    ASSERT_TRUE(surrogate.Refresh().ok());
    EXPECT_EQ(surrogate.get() == nullptr, i < 8) << i;
    if (surrogate.get() != nullptr) {
      EXPECT_EQ(static_cast<size_t>(surrogate.get()->process().n()), i);
    }
    growing.Add(all.rows()[i].plan, 0, all.rows()[i].windows);
  }
  const ArchiveRow& last = all.rows().back();
  const double before = surrogate.get()->Predict(last.plan).log_sd;
  ASSERT_TRUE(surrogate.Refresh().ok());
  EXPECT_LT(surrogate.get()->Predict(last.plan).log_sd, 0.5 * before);
  EXPECT_NEAR(surrogate.get()->Predict(last.plan).loss, all.Loss(last), 0.05 * all.Loss(last));
}

TEST(ShareModel, AlikePlansHaveAlikeShares) {
  // Three windows; the more FFN blocks are gone, the more of the loss falls on the first.
  MeasurementSet set;
  set.corpus = "numbers";
  set.window_tokens = set.tokens_scored = 1;
  set.n_windows = 3;
  Archive known(set);
  const auto windows_of = [](const Plan& plan) {
    const double first = 0.2 + 0.05 * (4 - plan.kept_ffn());
    return std::vector<WindowLoss>{{first, 1}, {0.5 - first / 2, 1}, {0.5 - first / 2, 1}};
  };
  std::vector<Plan> others;
  for (uint32_t bits = 1; bits < 256; ++bits) {
    Plan plan = Plan::Dense(4);
    for (int b = 0; b < 8; ++b) {
      plan.set_keep({b}, (bits >> b & 1U) != 0 ? 0 : 1);
    }
    if (bits % 3 == 0) {
      known.Add(plan, 0, windows_of(plan));
    } else {
      others.push_back(plan);
    }
  }
  const PlanKernel kernel(std::vector<double>(8, 1.0));
  const ShareModel model(known, kernel);
  double squares = 0;
  for (const Plan& plan : others) {
    const ShareModel::Guess guess = model.Predict(plan, 1);
    squares += std::pow((guess.log_mean - std::log(windows_of(plan)[0].kl)) / guess.log_sd, 2);
    EXPECT_NEAR(guess.log_mean, std::log(windows_of(plan)[0].kl), 0.08) << plan.ToText();
    EXPECT_NEAR(model.Predict(plan, 2).log_mean, std::log(0.5 + windows_of(plan)[0].kl / 2), 0.08);
  }
  EXPECT_LT(squares / static_cast<double>(others.size()), 4) << "as far off as it says that it may be";
  // Nothing known: every window has its part, and that is not sure.
  const ShareModel empty(Archive(set), kernel);
  EXPECT_NEAR(empty.Predict(others[0], 2).log_mean, std::log(2.0 / 3), 1e-12);
  EXPECT_GT(empty.Predict(others[0], 2).log_sd, 0.2);
}

TEST(LossSurrogate, SaysWhenThereIsNothingToLearnFrom) {
  MeasurementSet set;
  set.corpus = "novel.txt";
  set.window_tokens = set.n_windows = set.tokens_scored = 1;
  const auto surrogate = LossSurrogate::Fit(Archive(set), 4);
  ASSERT_FALSE(surrogate.ok());
  EXPECT_NE(surrogate.status().message().find("novel.txt"), std::string::npos);
}

}  // namespace
}  // namespace espalier
