// The footprint: predicted managed_bytes of (plan, workload). Exact integers for weights and KV; the rest are figures
// measured once per engine configuration (runtime/memory_model fills them in). Tests hold prediction and measurement
// together for every plan they try.
#pragma once

#include <cstdint>
#include <vector>

#include "model/plan.h"
#include "model/workload.h"

namespace espalier {

// KV cache geometry of one attention block, in bytes.
struct KvGeometry {
  uint64_t key_bytes_per_cell = 0;  // over all KV heads
  uint64_t value_bytes_per_cell = 0;
  int n_planes = 0;            // 2 * n_head_kv planes [cell][row]; each sequence commits whole pages of each
  uint64_t page_bytes = 4096;  // a power of two; 1 where memory is not paged by us (device buffers)
  // Cells the cache can hold; a device cache commits all of them at once.
  int64_t capacity = 0;
  bool commits_everything = false;

  uint64_t bytes_per_cell() const { return key_bytes_per_cell + value_bytes_per_cell; }
};

// Everything about one model under one engine configuration that determines its bytes.
struct MemoryModel {
  std::vector<uint64_t> block_bytes;  // resident bytes of each block's weights, padding and pages included
  uint64_t global_bytes = 0;          // embeddings, output head, norms: always resident
  KvGeometry kv;
  uint64_t compute_bytes = 0;  // graph buffer: activations, mask, one chunk of logits rows
  uint64_t work_bytes = 0;     // the backend's own scratch buffer
  uint64_t host_bytes = 0;     // our host-side buffers: graph metadata, inputs, cell tables
  // A restored block passes through staging when its buffer type rewrites weights; 0 where it is read in place.
  std::vector<uint64_t> block_staging_bytes;
  uint64_t global_staging_bytes = 0;

  // Of the dense plan.
  uint64_t weight_bytes() const;
  double kv_bytes_per_cell() const;
  // So many KV cells take as much as the weights do.
  double cells_of_weights() const { return static_cast<double>(weight_bytes()) / kv_bytes_per_cell(); }
};

struct Footprint {
  uint64_t weight_bytes = 0;
  uint64_t kv_bytes = 0;
  uint64_t compute_bytes = 0;  // graph + work + host buffers
  uint64_t staging_bytes = 0;  // peak while the plan's blocks are brought in; 0 at rest

  // What is held at rest.
  uint64_t managed_bytes() const { return weight_bytes + kv_bytes + compute_bytes; }
  // The peak of the transition that brings in the last block: what a budget has to allow.
  uint64_t peak_bytes() const { return managed_bytes() + staging_bytes; }
};

// Bytes of KV of one attention block for one sequence of `cells` cells: each plane commits the pages its rows touch.
uint64_t KvBytes(const KvGeometry& kv, int64_t cells);
// The same for a workload. Exact where its sequences are equally long; elsewhere the most that sequences of these
// numbers can take, a page for each of them and plane above their rows at worst.
uint64_t KvBytes(const KvGeometry& kv, const Workload& workload);
// Of one sequence that fills a cache of `cells` cells, whatever the capacity of `kv`: for looking at other workloads.
uint64_t KvBytesOfFullCache(KvGeometry kv, int64_t cells);

// REQUIRES: plan.n_block() == model.block_bytes.size(), plan.whole_blocks_only().
Footprint PredictFootprint(const MemoryModel& model, const Plan& plan, const Workload& workload);

// A plan that changes by one block at a time, and its footprint: always exactly what PredictFootprint says of it,
// without its sums over all blocks. What decisions are made with.
class PlanFootprint {
 public:
  // The dense plan. REQUIRES: `model` outlives this.
  PlanFootprint(const MemoryModel& model, const Workload& workload);

  // REQUIRES: the block is kept.
  void Drop(BlockId block);
  // REQUIRES: the block is dropped.
  void Restore(BlockId block);

  const Plan& plan() const { return plan_; }
  const Footprint& footprint() const { return footprint_; }
  // What keeping the block takes, staging left aside: its weights, and KV for attention.
  uint64_t bytes_of(BlockId block) const {
    return model_->block_bytes[static_cast<size_t>(block.index)] + kv_bytes_of(block);
  }

 private:
  uint64_t kv_bytes_of(BlockId block) const { return block.is_attention() ? kv_bytes_ : 0; }
  void FindStaging();

  const MemoryModel* model_;
  uint64_t kv_bytes_;  // of one attention block
  Plan plan_;
  Footprint footprint_;
  int n_staging_ = 0;  // kept blocks that need all of the footprint's staging
};

}  // namespace espalier
