// Activations that plans have in common: two plans that begin alike compute the same residual stream up to their first
// difference.
//
// The stream is kept after every layer of every plan that was run (least recently used ones go when the memory is
// spent), window by window, so that each plan starts at the end of the longest beginning that any plan before it had.
// For a greedy search that is more than "start at the dropped block": a candidate that drops block c from a base that
// has just lost block b > c finds, up to b, the activations of the candidate that dropped c a round before.
#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/plan.h"

namespace espalier {

// Thread rule: one thread at a time.
class PrefixCache {
 public:
  // Entries of `floats` each, max_bytes in all. `means_added`: dropped blocks change the stream (mean ablation).
  PrefixCache(size_t floats, uint64_t max_bytes, bool means_added);

  // Copies the longest kept beginning of `plan` in `window` to `hidden` and returns the number of blocks it covers;
  // -1, with `hidden` as it was, if there is none (0: the embeddings).
  int Find(int64_t window, const Plan& plan, std::span<float> hidden);
  // Keeps the stream after the first n_blocks of `plan`.
  void Put(int64_t window, const Plan& plan, int n_blocks, std::span<const float> hidden);

  uint64_t bytes() const { return entries_.size() * floats_ * sizeof(float); }

 private:
  struct Entry {
    std::string key;
    std::vector<float> hidden;
  };

  std::string KeyOf(int64_t window, const Plan& plan, int n_blocks) const;

  size_t floats_;
  size_t max_entries_;
  bool means_added_;
  std::list<Entry> entries_;  // most recently used first
  std::unordered_map<std::string_view, std::list<Entry>::iterator> by_key_;
};

}  // namespace espalier
