#include "eval/dense_statistics.h"

#include <cmath>

namespace espalier {
namespace {

// Sums over the rows of activations, [n_rows][n_embd].
class Accumulator {
 public:
  explicit Accumulator(size_t n_embd) : n_embd_(n_embd), sum_(n_embd) {}

  void Add(std::span<const float> before, std::span<const float> after) {
    for (size_t row = 0; row < before.size(); row += n_embd_) {
      double dot = 0;
      double before_squared = 0;
      double after_squared = 0;
      for (size_t i = 0; i < n_embd_; ++i) {
        const auto x = static_cast<double>(before[row + i]);
        const auto y = static_cast<double>(after[row + i]);
        dot += x * y;
        before_squared += x * x;
        after_squared += y * y;
        sum_[i] += y - x;
      }
      const double norm = std::sqrt(before_squared * after_squared);
      distance_ += norm > 0 ? 1 - dot / norm : 0;
      ++rows_;
    }
  }
  double mean_distance() const { return distance_ / static_cast<double>(rows_); }
  void WriteMean(std::span<float> out) const {
    for (size_t i = 0; i < n_embd_; ++i) {
      out[i] = static_cast<float>(sum_[i] / static_cast<double>(rows_));
    }
  }

 private:
  size_t n_embd_;
  std::vector<double> sum_;  // of what the block adds
  double distance_ = 0;
  int64_t rows_ = 0;
};

}  // namespace

Result<DenseStatistics> MeasureDenseStatistics(BlockRunner* runner, const Windows& windows,
                                               const std::function<void(int64_t, int64_t)>& progress) {
  const auto n_embd = static_cast<size_t>(runner->model().hparams().n_embd);
  const int n_block = runner->model().n_block();
  std::vector<Accumulator> blocks(static_cast<size_t>(n_block), Accumulator(n_embd));
  std::vector<Accumulator> layers(static_cast<size_t>(n_block / 2), Accumulator(n_embd));
  std::vector<float> before(static_cast<size_t>(windows.window_tokens) * n_embd);
  std::vector<float> after(before.size());
  std::vector<float> layer_input(before.size());
  for (int64_t window = 0; window < windows.count(); ++window) {
    ESPALIER_RETURN_IF_ERROR(runner->Embed(windows.at(window), before));
    for (int b = 0; b < n_block; ++b) {
      if (b % 2 == 0) {
        layer_input = before;
      }
      ESPALIER_RETURN_IF_ERROR(runner->Run({b}, before, after));
      blocks[static_cast<size_t>(b)].Add(before, after);
      if (b % 2 == 1) {
        layers[static_cast<size_t>(b / 2)].Add(layer_input, after);
      }
      std::swap(before, after);
    }
    if (progress) {
      progress(window + 1, windows.count());
    }
  }
  DenseStatistics statistics;
  statistics.means.n_embd = static_cast<int64_t>(n_embd);
  statistics.means.values.resize(static_cast<size_t>(n_block) * n_embd);
  for (size_t b = 0; b < blocks.size(); ++b) {
    blocks[b].WriteMean(std::span(statistics.means.values).subspan(b * n_embd, n_embd));
    statistics.block_influence.push_back(blocks[b].mean_distance());
  }
  for (const Accumulator& layer : layers) {
    statistics.layer_influence.push_back(layer.mean_distance());
  }
  return statistics;
}

}  // namespace espalier
