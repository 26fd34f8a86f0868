// Keys and values of every sequence, for every attention block that is resident.
//
// Semantics when attention blocks come and go:
//  * Cells are shared by all layers: cell c belongs to one (sequence, position). Whether layer il has K/V rows for it
//  is
//    a fact of its own, kept per (layer, cell): an unmasked row that was never written would still get weight e^0.
//  * When attention block il leaves, its planes are unmapped at once; no cell is valid there any more.
//  * When it returns, its planes are empty. A sequence attends there only if *all* its cells are valid there; until
//    then it skips the block, and the tokens it adds meanwhile write no rows there either. So new sequences use the
//    block at once, running ones after their tokens were prefilled again (Engine::Reprefill).
//  * Rows of the other layers keep the values computed under the plan of their time. What that costs in quality is
//    measured by `espalier eval --switch-at`.
//
// Quantised rows are rotated before they are stored (orthonormal Walsh-Hadamard, heads in groups): outliers spread over
// the group, and the quantisation error falls. Queries turn likewise, outputs turn back; so does libllama, whose bits
// we match. Types of 16 bits and more are stored as they are.
//
// Layout: head-major planes, K then V, each [head_dim, cells, n_head_kv] (ggml order): attention reads one head's keys
// as one stream, and a head could be released alone. On the host each layer is a region of its own, committed page by
// page as rows are written: a cache of 4096 cells that holds 100 costs 100. Freed cells give their pages back: cells
// are compacted to the front, and the tail is zeroed and discarded (padding must read as zero: NaN times a mask of 0 is
// still NaN). A device with memory of its own commits the whole layer at once.
#pragma once

#include <ggml-backend.h>
#include <ggml.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/region.h"
#include "base/status.h"
#include "model/architecture.h"
#include "model/footprint.h"
#include "runtime/device.h"
#include "runtime/weights.h"

namespace espalier {

struct KvOptions {
  int64_t capacity = 0;  // cells; rounded up to a multiple of kKvPadding
  ggml_type key_type = GGML_TYPE_F16;
  ggml_type value_type = GGML_TYPE_F16;
  bool measuring = false;  // planes have shapes but no memory: for size-only graph calls
  // One layer's planes serve every layer: for texts that run through one block at a time (runtime/block_runner.h).
  bool shared = false;
};

// Attention reads cells in multiples of this, so that a graph can be reused while a sequence grows (as libllama does).
inline constexpr int64_t kKvPadding = 256;

struct KvCell {
  int32_t sequence = -1;  // -1: free
  int32_t position = 0;
};

// Thread rule: the owner's thread only.
class KvCache {
 public:
  KvCache(const HyperParameters& hparams, const Device* device, const KvOptions& options);

  static KvGeometry Geometry(const HyperParameters& hparams, const Device& device, const KvOptions& options);

  // --- layers
  // Empty planes for the layer. No-op if it has some. Fails with kIo if memory fails.
  Status AddLayer(int il);
  void RemoveLayer(int il);
  bool has_layer(int il) const { return layers_[Slot(il)].key != nullptr; }
  // Planes [head_dim, capacity, n_head_kv]. REQUIRES: has_layer(il).
  ggml_tensor* key(int il) const { return layers_[Slot(il)].key; }
  ggml_tensor* value(int il) const { return layers_[Slot(il)].value; }

  // f32 [n, n] to multiply heads with, n dividing head_dim; nullptr where rows are stored as they are.
  ggml_tensor* key_rotation() const { return key_rotation_; }
  ggml_tensor* value_rotation() const { return value_rotation_; }

  const KvGeometry& geometry() const { return geometry_; }
  // Cell tables and rotations, held whatever the layers hold.
  uint64_t host_bytes() const;

  // --- cells
  int64_t capacity() const { return static_cast<int64_t>(cells_.size()); }
  int64_t used() const { return used_; }
  std::span<const KvCell> cells() const { return cells_; }
  // One past the highest used cell.
  int64_t high_water() const { return high_; }
  // Cells that attention reads: high_water() padded.
  int64_t read_extent() const;

  // Takes the lowest free cell. REQUIRES: used() < capacity().
  int64_t Take(int32_t sequence, int32_t position);
  // Says that the layer's rows of this cell are written by the graph about to run.
  void MarkWritten(int il, int64_t cell);
  // Frees the sequence's cells at positions >= first_position, without returning memory yet.
  void Free(int32_t sequence, int32_t first_position);
  // True if all cells of the sequence are valid in the layer (vacuously for an empty sequence).
  bool Complete(int il, int32_t sequence) const;

  // Moves cells from the end into holes and gives the tail's pages back.
  void Compact();

  // Committed bytes over all layers.
  uint64_t committed_bytes() const;

 private:
  struct Layer {
    Region region;
    GgmlContext context;
    GgmlBuffer buffer;  // declared last: goes before the region it may lie over
    ggml_tensor* key = nullptr;
    ggml_tensor* value = nullptr;
    std::vector<uint8_t> valid;   // per cell
    int64_t committed_cells = 0;  // rows [0, n) may have pages
  };

  size_t Slot(int il) const { return options_.shared ? 0 : static_cast<size_t>(il); }
  void MakeRotations();
  void MoveCell(int64_t from, int64_t to);
  void MoveRows(ggml_tensor* planes, int64_t from, int64_t to) const;
  void GiveTailBack(Layer& layer);

  const HyperParameters hparams_;
  const Device* device_;
  KvOptions options_;
  KvGeometry geometry_;
  GgmlContext rotation_context_;
  GgmlBuffer rotation_buffer_;
  ggml_tensor* key_rotation_ = nullptr;
  ggml_tensor* value_rotation_ = nullptr;
  std::vector<Layer> layers_;
  std::vector<KvCell> cells_;
  int64_t used_ = 0;
  int64_t high_ = 0;
  int64_t lowest_free_ = 0;  // no free cell lies below
};

}  // namespace espalier
