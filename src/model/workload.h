// A workload: what is resident besides weights. Footprints are functions of (plan, workload); more of any of its three
// numbers never takes less.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace espalier {

struct Workload {
  int n_sequences = 1;
  // KV cells reserved over all sequences: prompts + tokens still to come.
  int64_t kv_cells = 0;
  // Tokens of the longest sequence.
  int64_t longest_sequence = 0;

  // `n` sequences of `tokens` tokens each.
  static Workload Uniform(int n, int64_t tokens) { return {n, n * tokens, tokens}; }
  // No sequence at all: what a sum begins with. The default is one sequence that is still empty.
  static Workload None() { return {0, 0, 0}; }
  // Parses "8x512" (8 sequences of 512 tokens) or "512" (one). Bounds: 1 to 65536 sequences, 1 to 2^27 cells in all.
  static Result<Workload> Parse(std::string_view text);
  std::string ToText() const;

  // Both at once, each in sequences of its own: sequences and cells add up. The longest sequence is the longer of the
  // two, for none grows by others beside it.
  Workload& operator+=(const Workload& other);
  friend Workload operator+(Workload a, const Workload& b) { return a += b; }
  // None of its three numbers exceeds `other`'s. Of two workloads neither need be within the other.
  bool Within(const Workload& other) const;

  friend bool operator==(const Workload&, const Workload&) = default;
};

// One or the other: the least that both are within. What has room for it has room for either, but not for both at once.
Workload Max(const Workload& a, const Workload& b);

}  // namespace espalier
