#include "eval/kl_bound.h"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <thread>

#include "eval/softmax_kernel.h"

namespace espalier {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr int64_t kRowsAtOnce = 256;
constexpr int64_t kEntriesAtOnce = 512;
constexpr double kNoRest = 1e-12;  // less probability than this is none

int64_t EntriesApart(int64_t n_vocab) {
  return std::min<int64_t>(n_vocab, std::clamp<int64_t>(n_vocab / 16, 16, 1024));
}

}  // namespace

struct KlBound::Scratch {
  explicit Scratch(int64_t n_apart)
      : logits(static_cast<size_t>(n_apart)), exponentials(static_cast<size_t>(n_apart)) {}
  HeadRows::Activations activations;
  std::vector<float> logits;  // of S
  std::vector<float> exponentials;
};

KlBound::KlBound(const DensePredictions& dense, const HeadRows* head, int n_threads)
    : head_(head),
      n_threads_(std::max(1, n_threads)),
      n_embd_(head->n_embd()),
      n_apart_(EntriesApart(head->n_vocab())),
      ids_(static_cast<size_t>(dense.n_rows() * n_apart_)),
      probabilities_(ids_.size()),
      rest_rows_(static_cast<size_t>(dense.n_rows() * n_embd_)),
      moments_(static_cast<size_t>(dense.n_rows())) {
  const int64_t n_vocab = dense.n_vocab();
  Matrix rest(kRowsAtOnce, n_vocab);
  Matrix entries(kEntriesAtOnce, n_embd_);
  for (int64_t first = 0; first < dense.n_rows(); first += kRowsAtOnce) {
    const int64_t n = std::min(kRowsAtOnce, dense.n_rows() - first);
    for (int64_t i = 0; i < n; ++i) {
      const std::span<float> probabilities(rest.row(i).data(), static_cast<size_t>(n_vocab));
      dense.Probabilities(first + i, probabilities);
      moments_[static_cast<size_t>(first + i)].negative_entropy = dense.NegativeEntropy(first + i);
      Split(first + i, probabilities);
    }
    Eigen::Map<Matrix> sums(rest_rows_.data() + first * n_embd_, n, n_embd_);
    sums.setZero();
    for (int64_t entry = 0; entry < n_vocab; entry += kEntriesAtOnce) {
      const int64_t count = std::min(kEntriesAtOnce, n_vocab - entry);
      for (int64_t i = 0; i < count; ++i) {
        head_->Decode(static_cast<int32_t>(entry + i), {entries.row(i).data(), static_cast<size_t>(n_embd_)});
      }
      sums.noalias() += rest.block(0, entry, n, count) * entries.topRows(count);
    }
  }
}

void KlBound::Split(int64_t row, std::span<float> probabilities) {
  int32_t* const ids = ids_.data() + row * n_apart_;
  float* const apart = probabilities_.data() + row * n_apart_;
  std::vector<float> sorted(probabilities.begin(), probabilities.end());
  const auto last = sorted.begin() + n_apart_ - 1;
  std::nth_element(sorted.begin(), last, sorted.end(), std::greater<>());
  const float least = *last;
  // All above the least that still belongs to S, then as many of its equals as there is room for.
  int64_t n = 0;
  for (const bool equals : {false, true}) {
    for (size_t id = 0; id < probabilities.size() && n < n_apart_; ++id) {
      if (equals ? probabilities[id] == least : probabilities[id] > least) {
        ids[n] = static_cast<int32_t>(id);
        apart[n++] = probabilities[id];
      }
    }
  }
  for (int64_t i = 0; i < n_apart_; ++i) {
    probabilities[static_cast<size_t>(ids[i])] = 0;
  }
  RowMoments& moments = moments_[static_cast<size_t>(row)];
  for (const float value : probabilities) {
    const auto p = static_cast<double>(value);
    moments.rest += p;
    moments.rest_p_ln_p += p > 0 ? p * std::log(p) : 0;
  }
}

double KlBound::Project(int64_t row, std::span<const float> normed, Scratch* scratch) const {
  head_->Round(normed, &scratch->activations);
  head_->Logits(&scratch->activations,
                std::span(ids_).subspan(static_cast<size_t>(row * n_apart_), scratch->logits.size()), scratch->logits);
  const Eigen::Map<const Eigen::VectorXf> rest(rest_rows_.data() + row * n_embd_, n_embd_);
  const Eigen::Map<const Eigen::VectorXf> activations(scratch->activations.values.data(), n_embd_);
  return static_cast<double>(rest.dot(activations));
}

double KlBound::ErrorAgainst(int64_t row, std::span<const float> normed, std::span<const float> logits,
                             const DensePredictions& dense) const {
  Scratch scratch(n_apart_);
  const double rest = Project(row, normed, &scratch);
  std::vector<float> probabilities(logits.size());
  dense.Probabilities(row, probabilities);
  double worst = 0;
  for (size_t i = 0; i < scratch.logits.size(); ++i) {
    const auto id = static_cast<size_t>(ids_[static_cast<size_t>(row * n_apart_) + i]);
    worst = std::max(worst, std::abs(static_cast<double>(scratch.logits[i]) - static_cast<double>(logits[id])));
    probabilities[id] = 0;
  }
  double expected = 0;
  for (size_t id = 0; id < logits.size(); ++id) {
    expected += static_cast<double>(probabilities[id]) * static_cast<double>(logits[id]);
  }
  return std::max(worst, std::abs(rest - expected));
}

double KlBound::OfRow(int64_t row, std::span<const float> normed, Scratch* scratch) const {
  const RowMoments& moments = moments_[static_cast<size_t>(row)];
  const double rest_expectation = Project(row, normed, scratch);
  const float* const p = probabilities_.data() + row * n_apart_;
  double expectation = rest_expectation;
  for (size_t i = 0; i < scratch->logits.size(); ++i) {
    expectation += static_cast<double>(p[i]) * static_cast<double>(scratch->logits[i]);
  }
  const float max = MaxOf(scratch->logits);
  ExponentialsOf(scratch->logits, max, scratch->exponentials);
  double sum = 0;
  for (const float value : scratch->exponentials) {
    sum += static_cast<double>(value);
  }
  double log_sum = static_cast<double>(max) + std::log(sum);
  if (moments.rest > kNoRest) {
    const double of_rest = std::log(moments.rest) + (rest_expectation - moments.rest_p_ln_p) / moments.rest;
    const double larger = std::max(log_sum, of_rest);
    log_sum = larger + std::log(std::exp(log_sum - larger) + std::exp(of_rest - larger));
  }
  return moments.negative_entropy - expectation + log_sum;
}

double KlBound::OfRows(int64_t row, std::span<const float> normed, double slack) const {
  const int64_t n_rows = static_cast<int64_t>(normed.size()) / n_embd_;
  std::vector<double> bounds(static_cast<size_t>(n_rows));
  const auto work = [&](int64_t first, int64_t end) {
    Scratch scratch(n_apart_);
    for (int64_t i = first; i < end; ++i) {
      const auto of_row = normed.subspan(static_cast<size_t>(i * n_embd_), static_cast<size_t>(n_embd_));
      const double bound = OfRow(row + i, of_row, &scratch) - slack;
      bounds[static_cast<size_t>(i)] = bound < 0 ? 0 : bound;  // what is not a number stays so
    }
  };
  const int64_t share = (n_rows + n_threads_ - 1) / n_threads_;
  std::vector<std::thread> threads;
  for (int64_t first = share; first < n_rows; first += share) {
    threads.emplace_back(work, first, std::min(first + share, n_rows));
  }
  work(0, std::min(share, n_rows));
  for (std::thread& thread : threads) {
    thread.join();
  }
  return std::accumulate(bounds.begin(), bounds.end(), 0.0);
}

}  // namespace espalier
