#include "strategy/loss_margin.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "strategy/objectives.h"

namespace espalier {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

// A surrogate's rows near some front, each guessed without itself.
struct NearFront {
  std::vector<Index> rows;
  VectorXd truth, mean, deviation;  // by all rows, of ln(loss + floor)
};

// Sizes of all rows at one workload.
VectorXd SizesAt(const MatrixXd& plans, const MemoryModel& memory, int64_t kv_cells) {
  return plans.transpose() * Objectives(memory, kv_cells, 1).size_by_keep();
}

std::vector<Index> BySize(const VectorXd& sizes) {
  std::vector<Index> order(static_cast<size_t>(sizes.size()));
  std::iota(order.begin(), order.end(), Index{0});
  std::sort(order.begin(), order.end(), [&](Index a, Index b) { return sizes[a] < sizes[b]; });
  return order;
}

NearFront FindNearFront(const LossSurrogate& surrogate, const MemoryModel& memory, std::span<const int64_t> kv_cells,
                        double near_front) {
  const GaussianProcess& process = surrogate.process();
  NearFront found;
  const GaussianProcess::Prediction guess = process.LeaveOneOut();
  found.truth = process.y();
  found.mean = guess.mean;
  found.deviation = guess.variance.cwiseSqrt();
  std::vector<bool> near(static_cast<size_t>(process.n()), false);
  for (const int64_t cells : kv_cells) {
    double least = std::numeric_limits<double>::infinity();
    for (const Index row : BySize(SizesAt(process.x(), memory, cells))) {
      least = std::min(least, found.truth[row]);
      near[static_cast<size_t>(row)] =
          near[static_cast<size_t>(row)] || found.truth[row] + std::log(near_front) <= least;
    }
  }
  for (size_t row = 0; row < near.size(); ++row) {
    if (near[row]) {
      found.rows.push_back(static_cast<Index>(row));
    }
  }
  return found;
}

// Ranks from 0; of equal values the mean of theirs.
std::vector<double> RanksOf(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (size_t first = 0; first < order.size();) {
    size_t last = first;
    while (last + 1 < order.size() && values[order[last + 1]] == values[order[first]]) {
      ++last;
    }
    for (size_t i = first; i <= last; ++i) {
      ranks[order[i]] = 0.5 * static_cast<double>(first + last);
    }
    first = last + 1;
  }
  return ranks;
}

double Spearman(const std::vector<double>& a, const std::vector<double>& b) {
  const std::vector<double> ra = RanksOf(a);
  const std::vector<double> rb = RanksOf(b);
  const double mean = 0.5 * static_cast<double>(a.size() - 1);
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    ab += (ra[i] - mean) * (rb[i] - mean);
    aa += (ra[i] - mean) * (ra[i] - mean);
    bb += (rb[i] - mean) * (rb[i] - mean);
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

}  // namespace

double LossMargin::Upper(const LossSurrogate& surrogate, const LossSurrogate::Guess& guess) const {
  const double deviation = std::sqrt(guess.log_sd * guess.log_sd + surrogate.process().noise_variance());
  return std::max(guess.loss, std::exp(guess.log_mean + deviations * deviation) - LossSurrogate::kFloor);
}

LossMargin MarginOf(const LossSurrogate& surrogate, const MemoryModel& memory, std::span<const int64_t> kv_cells,
                    const MarginOptions& options) {
  const NearFront near = FindNearFront(surrogate, memory, kv_cells, options.near_front);
  std::vector<double> differences;
  for (const Index row : near.rows) {
    differences.push_back((near.truth[row] - near.mean[row]) / near.deviation[row]);
  }
  std::sort(differences.begin(), differences.end());
  const auto n = static_cast<double>(differences.size());
  const double rank = std::ceil((n + 1) * options.confidence);
  LossMargin margin = {options.confidence, std::numeric_limits<double>::infinity(),
                       static_cast<int64_t>(differences.size())};
  if (rank <= n) {
    margin.deviations = differences[static_cast<size_t>(rank) - 1];
  }
  return margin;
}

SurrogateDiagnosis Diagnose(const LossSurrogate& surrogate, const MemoryModel& memory,
                            std::span<const int64_t> kv_cells, const MarginOptions& options) {
  constexpr double kCentral90 = 1.6448536269514722;  // standard deviations
  constexpr double kBand = 0.02;                     // of the dense model's bytes, to both sides
  constexpr size_t kFewest = 5;                      // of which an order can be told
  const NearFront near = FindNearFront(surrogate, memory, kv_cells, options.near_front);
  SurrogateDiagnosis diagnosis;
  diagnosis.plans = static_cast<int64_t>(near.rows.size());
  for (const Index row : near.rows) {
    const double difference = near.truth[row] - near.mean[row];
    diagnosis.error += difference * difference / static_cast<double>(near.rows.size());
    diagnosis.coverage_90 +=
        std::abs(difference) <= kCentral90 * near.deviation[row] ? 1.0 / static_cast<double>(near.rows.size()) : 0;
  }
  diagnosis.error = std::sqrt(diagnosis.error);
  const MatrixXd& plans = surrogate.process().x();
  const VectorXd additive = (1 - plans.array()).matrix().transpose() * surrogate.process().kernel().prior();
  for (const int64_t cells : kv_cells) {
    const VectorXd sizes = SizesAt(plans, memory, cells);
    for (double middle = kBand; middle < 1; middle += 2 * kBand) {
      std::vector<double> truth, guess, sum;
      for (const Index row : near.rows) {
        if (std::abs(sizes[row] - middle) <= kBand) {
          truth.push_back(near.truth[row]);
          guess.push_back(near.mean[row]);
          sum.push_back(additive[row]);
        }
      }
      if (truth.size() >= kFewest) {
        diagnosis.spearman += Spearman(truth, guess);
        diagnosis.spearman_additive += Spearman(truth, sum);
        ++diagnosis.bands;
      }
    }
  }
  const auto bands = static_cast<double>(std::max<int64_t>(diagnosis.bands, 1));
  diagnosis.spearman /= bands;
  diagnosis.spearman_additive /= bands;
  return diagnosis;
}

}  // namespace espalier
