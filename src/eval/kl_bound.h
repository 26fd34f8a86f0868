// A lower bound of KL(dense || plan) at a few percent of the output head's price, for models whose head is much of
// their work: a plan whose bound is above another's loss need not be put through the head.
//
// For every scored token the vocabulary falls into S, the entries the dense model thinks most of, and the rest R. With
// p the dense probabilities and l the plan's logits,
//   KL = sum p ln p - sum p l + ln sum exp(l),
// and by Jensen's inequality, with P = p(R),
//   sum over R of exp(l) >= P exp( (sum over R of p (l - ln p)) / P ).
// sum over R of p l is one dot product: logits are linear in the activations, so the rows of R, weighted by p, are
// added up once and for all. Only the logits of S are computed. What is lost is how much the rest's logits moved
// against each other: with 512 of 8192 entries in S, 5 to 12 % of the KL.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "eval/dense_predictions.h"
#include "runtime/head_rows.h"

namespace espalier {

// Thread rule: const after construction; OfRows runs threads of its own.
class KlBound {
 public:
  // `head` must outlive it. Memory: n_embd + 2 |S| numbers per row of `dense`. Costs one multiplication of the
  // head with all rows.
  KlBound(const DensePredictions& dense, const HeadRows* head, int n_threads);

  double FlopsPerRow() const { return 2.0 * static_cast<double>(n_apart_ + 1) * static_cast<double>(n_embd_); }

  // The largest error, in nats, of what this computes from one normed row against its logits by the head: of a logit
  // of S, or of the expectation of the rest. REQUIRES: normed.size() == n_embd, logits.size() == n_vocab.
  double ErrorAgainst(int64_t row, std::span<const float> normed, std::span<const float> logits,
                      const DensePredictions& dense) const;

  // Sum over rows row, row + 1, ... of the bound, each lowered by `slack` nats; `normed` is [rows][n_embd]. Not finite
  // where activations are not. Does not depend on the number of threads.
  double OfRows(int64_t row, std::span<const float> normed, double slack) const;

 private:
  struct RowMoments {
    double negative_entropy = 0;  // sum p ln p
    double rest = 0;              // P = p(R)
    double rest_p_ln_p = 0;       // over R
  };
  struct Scratch;

  // Chooses S, and leaves in `probabilities` only those of R.
  void Split(int64_t row, std::span<float> probabilities);
  double OfRow(int64_t row, std::span<const float> normed, Scratch* scratch) const;
  // Logits of S into the scratch; returns sum over R of p l.
  double Project(int64_t row, std::span<const float> normed, Scratch* scratch) const;

  const HeadRows* head_;
  int n_threads_;
  int64_t n_embd_;
  int64_t n_apart_;                   // |S|: a 16th of the vocabulary, 1024 at most
  std::vector<int32_t> ids_;          // [n_rows][n_apart]
  std::vector<float> probabilities_;  // [n_rows][n_apart], p of S
  std::vector<float> rest_rows_;      // [n_rows][n_embd], sum over R of p * row of the head
  std::vector<RowMoments> moments_;   // [n_rows]
};

}  // namespace espalier
