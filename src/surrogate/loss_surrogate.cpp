#include "surrogate/loss_surrogate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace espalier {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

struct Rows {
  std::vector<Plan> plans;
  std::vector<double> losses;
};

// The dense plan is left out: its loss is known, and the logarithm of next to nothing would bend every guess.
Rows WholeRows(const Archive& archive) {
  Rows rows;
  for (const ArchiveRow& row : archive.rows()) {
    if (archive.whole(row) && !row.plan.dense()) {
      rows.plans.push_back(row.plan);
      rows.losses.push_back(archive.Loss(row));
    }
  }
  return rows;
}

// By block, the loss of dropping it alone; where it was not measured, the mean of those that were.
std::vector<double> SingleLosses(const Rows& rows, int n_layer) {
  std::vector<double> single(static_cast<size_t>(2 * n_layer), -1);
  double sum = 0;
  int n = 0;
  for (size_t i = 0; i < rows.plans.size(); ++i) {
    const std::vector<BlockId> dropped = rows.plans[i].dropped();
    if (dropped.size() == 1 && rows.plans[i].whole_blocks_only()) {
      single[static_cast<size_t>(dropped.front().index)] = rows.losses[i];
      sum += rows.losses[i];
      ++n;
    }
  }
  for (double& loss : single) {
    loss = (loss >= 0 ? loss : n > 0 ? sum / n : 1) + LossSurrogate::kFloor;
  }
  return single;
}

void KeepMostUseful(Rows* rows, size_t most) {
  if (rows->plans.size() <= most) {
    return;
  }
  std::vector<size_t> order(rows->plans.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto badness = [&](size_t i) {
    return rows->losses[i] / (1.0 + static_cast<double>(rows->plans[i].dropped().size()));
  };
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return badness(a) < badness(b); });
  order.resize(most);
  Rows kept;
  for (const size_t i : order) {
    kept.plans.push_back(std::move(rows->plans[i]));
    kept.losses.push_back(rows->losses[i]);
  }
  *rows = std::move(kept);
}

double ToLog(double loss) { return std::log(loss + LossSurrogate::kFloor); }

// Every n-th row, so that there are at most `most`.
Rows Thinned(const Rows& rows, size_t most) {
  const size_t step = (rows.plans.size() + most - 1) / most;
  Rows kept;
  for (size_t i = 0; i < rows.plans.size(); i += step) {
    kept.plans.push_back(rows.plans[i]);
    kept.losses.push_back(rows.losses[i]);
  }
  return kept;
}

Status SetRows(const Rows& rows, GaussianProcess* process) {
  VectorXd y(static_cast<Index>(rows.losses.size()));
  for (size_t i = 0; i < rows.losses.size(); ++i) {
    y[static_cast<Index>(i)] = ToLog(rows.losses[i]);
  }
  return process->SetData(KeepMatrix(rows.plans), std::move(y));
}

}  // namespace

MatrixXd KeepMatrix(std::span<const Plan> plans) {
  MatrixXd x(plans.empty() ? 0 : plans.front().n_block(), static_cast<Index>(plans.size()));
  for (size_t i = 0; i < plans.size(); ++i) {
    for (int b = 0; b < plans[i].n_block(); ++b) {
      x(b, static_cast<Index>(i)) = plans[i].keep({b});
    }
  }
  return x;
}

Result<LossSurrogate> LossSurrogate::Fit(const Archive& archive, int n_layer, int steps, size_t most_rows) {
  Rows rows = WholeRows(archive);
  if (rows.plans.size() < 2) {
    return InvalidArgument(
        fmt::format("surrogate: expected measured plans, found none in the archive of '{}'", archive.set().corpus));
  }
  const std::vector<double> prior = SingleLosses(rows, n_layer);
  KeepMostUseful(&rows, most_rows);
  // A handful of hyper-parameters needs no more rows than that, and each step costs their number cubed.
  constexpr size_t kRowsForHyperParameters = 400;
  GaussianProcess process{PlanKernel(prior)};
  ESPALIER_RETURN_IF_ERROR(SetRows(Thinned(rows, kRowsForHyperParameters), &process));
  ESPALIER_RETURN_IF_ERROR(process.FitHyperParameters(steps));
  ESPALIER_RETURN_IF_ERROR(SetRows(rows, &process));
  return LossSurrogate(std::move(process));
}

std::vector<LossSurrogate::Guess> LossSurrogate::Predict(std::span<const Plan> plans) const {
  if (plans.empty()) {
    return {};
  }
  const GaussianProcess::Prediction prediction = process_.Predict(KeepMatrix(plans));
  std::vector<Guess> guesses(plans.size());
  for (size_t i = 0; i < plans.size(); ++i) {
    guesses[i].log_mean = prediction.mean[static_cast<Index>(i)];
    guesses[i].log_sd = std::sqrt(prediction.variance[static_cast<Index>(i)]);
    guesses[i].loss = plans[i].dense() ? 0 : std::max(0.0, std::exp(guesses[i].log_mean) - kFloor);
  }
  return guesses;
}

std::vector<double> LossSurrogate::LogMeans(std::span<const Plan> plans) const {
  if (plans.empty()) {
    return {};
  }
  const VectorXd means = process_.Mean(KeepMatrix(plans));
  return {means.data(), means.data() + means.size()};
}

Status LossSurrogate::Add(const Plan& plan, double loss) {
  return process_.AddRow(KeepMatrix(std::span(&plan, 1)).col(0), ToLog(loss));
}

}  // namespace espalier
