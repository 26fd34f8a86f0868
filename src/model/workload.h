// A workload: what is resident besides weights. Footprints are functions of (plan, workload).
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
  // Parses "8x512" (8 sequences of 512 tokens) or "512" (one). Bounds: 1 to 65536 sequences, 1 to 2^27 cells in all.
  static Result<Workload> Parse(std::string_view text);
  std::string ToText() const;

  friend bool operator==(const Workload&, const Workload&) = default;
};

}  // namespace espalier
