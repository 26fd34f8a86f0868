// What the engine knows of each sequence: its tokens, its own plan, and where rows are missing.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "model/plan.h"
#include "runtime/engine.h"
#include "runtime/kv_cache.h"

namespace espalier {

struct Sequence {
  std::vector<int32_t> tokens;
  std::optional<Plan> plan;           // restricts what it computes; empty: everything resident
  std::vector<uint8_t> rows_missing;  // per layer: some cell has no K/V rows there
};

// Thread rule: the owner's thread only.
class SequenceTable {
 public:
  SequenceTable(int n_layer, KvCache* kv) : n_layer_(n_layer), kv_(kv) {}

  // nullptr if unknown.
  const Sequence* Find(SequenceId id) const;
  Sequence& GetOrAdd(SequenceId id);
  void Remove(SequenceId id);
  // Keeps the first `length` tokens and their cells.
  void Truncate(SequenceId id, int64_t length);
  // The layer's rows are gone for everybody.
  void LoseRows(int il);

  // True if the sequence's tokens run through the block, given that the block is resident.
  static bool Runs(const Sequence& sequence, BlockId block);

 private:
  int n_layer_;
  KvCache* kv_;
  std::map<SequenceId, Sequence> sequences_;
};

}  // namespace espalier
