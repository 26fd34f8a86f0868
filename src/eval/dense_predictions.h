// What the dense model predicted for every scored token of a text, kept compactly, and how far another prediction is
// from it.
//
// Probabilities are kept as bfloat16 (8 significant bits: each off by at most 0.4 %, in either direction) and rescaled
// to a sum of one: 2 bytes per token and vocabulary entry. The distance measured is the exact divergence from that
// slightly rounded distribution, so it is never negative, and rises with every token. What the rounding costs: the
// dense model itself is at about 4e-6 nats from its rounded self instead of 0, and a plan's loss moves by less than
// 1e-3 of itself (eval/dense_predictions_test.cpp holds both). 16 bits spent on log-probabilities, as
// llama-perplexity's
// --kl-divergence-base does, cost an exponential per entry to read and are not better; the largest k probabilities
// alone would make distances of distributions that differ in the tail too small.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "profile/archive.h"

namespace espalier {

class DensePredictions {
 public:
  // Room for n_rows rows of n_vocab entries.
  DensePredictions(int64_t n_rows, int64_t n_vocab);

  // Keeps the distribution softmax(logits) as row `row`. Returns false if a logit is not finite.
  bool Keep(int64_t row, std::span<const float> logits);

  // KL(kept row || softmax(logits)) and the negative log-likelihood of `target` under softmax(logits), in nats.
  // kl >= 0. Not finite if a logit is not. REQUIRES: the row was kept, target < n_vocab.
  WindowLoss Compare(int64_t row, std::span<const float> logits, int32_t target) const;

  // The kept distribution: probabilities that add up to one. REQUIRES: out.size() == n_vocab.
  void Probabilities(int64_t row, std::span<float> out) const;
  // sum p ln p of the kept distribution.
  double NegativeEntropy(int64_t row) const { return scales_[static_cast<size_t>(row)].negative_entropy; }

  int64_t n_rows() const { return static_cast<int64_t>(scales_.size()); }
  int64_t n_vocab() const { return n_vocab_; }
  uint64_t bytes() const { return probabilities_.size() * sizeof(uint16_t) + scales_.size() * sizeof(RowScale); }

 private:
  struct RowScale {
    double sum = 0;               // of the rounded probabilities
    double negative_entropy = 0;  // sum p ln p of the rescaled row
  };

  int64_t n_vocab_;
  std::vector<uint16_t> probabilities_;  // [n_rows][n_vocab], bfloat16
  std::vector<RowScale> scales_;
};

}  // namespace espalier
