// Keys and values of every sequence, for every attention block that is resident.
//
// Each sequence has a slot: cells of its own, one behind the other, of which cell p holds position p. So attention of a
// sequence reads its own rows and no others, its mask is causal and nothing else, and what one sequence computes does
// not depend on which others there are.
//
// Semantics when attention blocks come and go:
//  * Rows of a sequence in a layer are either all there or all missing: an unmasked row that was never written would
//    still get weight e^0.
//  * When attention block il leaves, its planes are unmapped at once.
//  * When it returns, its planes are empty. A sequence attends there only if *all* its cells have rows there; until
//    then it skips the block, and the tokens it adds meanwhile write no rows there either. So new sequences use the
//    block at once, running ones after their tokens were prefilled again (Engine::Reprefill).
//  * Rows of the other layers keep the values computed under the plan of their time. What that costs in quality is
//    measured by `espalier eval --switch-at`.
//
// Quantised rows are rotated before they are stored (orthonormal Walsh-Hadamard, heads in groups): outliers spread over
// the group, and the quantisation error falls. Queries turn likewise, outputs turn back; so does libllama, whose bits
// we match. Types of 16 bits and more are stored as they are.
//
// Layout: head-major planes, K then V, each [head_dim, slots * stride, n_head_kv] (ggml order): attention reads one
// head's keys as one stream, and a head could be released alone. On the host each layer is a region of its own,
// committed page by page as rows are written, and every slot has addresses for all that a sequence may hold: a cache of
// 4096 cells that holds 100 costs 100. Freed cells give their pages back (padding must read as zero: NaN times a mask
// of 0 is still NaN). A device with memory of its own commits the whole layer at once, so slots share the capacity
// evenly there.
#pragma once

#include <ggml-backend.h>
#include <ggml.h>

#include <cstdint>
#include <map>
#include <vector>

#include "base/region.h"
#include "base/status.h"
#include "model/architecture.h"
#include "model/footprint.h"
#include "runtime/device.h"
#include "runtime/weights.h"

namespace espalier {

struct KvOptions {
  int64_t capacity = 0;   // cells over all sequences; rounded up to a multiple of kKvPadding
  int max_sequences = 1;  // slots, as EngineOptions has them; no more than have kKvPadding cells each on a device
  int64_t max_sequence_cells = 0;  // likewise
  ggml_type key_type = GGML_TYPE_F16;
  ggml_type value_type = GGML_TYPE_F16;
  bool measuring = false;  // planes have shapes but no memory: for size-only graph calls
  // One layer's planes serve every layer: for texts that run through one block at a time (runtime/block_runner.h).
  bool shared = false;
};

// Attention reads cells in multiples of this, so that a graph can be reused while a sequence grows (as libllama does).
inline constexpr int64_t kKvPadding = 256;

inline constexpr int kNoSlot = -1;

// Thread rule: the owner's thread only.
class KvCache {
 public:
  KvCache(const HyperParameters& hparams, const Device* device, const KvOptions& options);

  static KvGeometry Geometry(const HyperParameters& hparams, const Device& device, const KvOptions& options);

  // --- layers
  // Empty planes for the layer. No-op if it has some. Fails with kIo if memory fails.
  Status AddLayer(int il);
  void RemoveLayer(int il);
  bool has_layer(int il) const { return layers_[LayerIndex(il)].key != nullptr; }
  // Planes [head_dim, n_slots() * stride(), n_head_kv]. REQUIRES: has_layer(il).
  ggml_tensor* key(int il) const { return layers_[LayerIndex(il)].key; }
  ggml_tensor* value(int il) const { return layers_[LayerIndex(il)].value; }

  // f32 [n, n] to multiply heads with, n dividing head_dim; nullptr where rows are stored as they are.
  ggml_tensor* key_rotation() const { return key_rotation_; }
  ggml_tensor* value_rotation() const { return value_rotation_; }

  const KvGeometry& geometry() const { return geometry_; }
  // Tables of slots and rotations, held whatever the layers hold.
  uint64_t host_bytes() const;

  // --- sequences and their cells
  int64_t capacity() const { return geometry_.capacity; }
  int64_t used() const { return used_; }
  int n_slots() const { return static_cast<int>(slots_.size()); }
  int free_slots() const { return static_cast<int>(slots_.size() - slot_of_.size()); }
  // Cells between the first cells of two neighbouring slots: also the most that a sequence can hold.
  int64_t stride() const { return stride_; }
  // The sequence's slot; kNoSlot if it has none.
  int slot(int32_t sequence) const;
  int64_t length(int32_t sequence) const;
  // Cells that attention reads for a sequence of this length: padded.
  int64_t read_extent(int64_t length) const;

  // Gives the sequence the lowest free slot, if it has none. REQUIRES: there is one.
  int TakeSlot(int32_t sequence);
  // Appends a cell to the sequence, which has a slot. Its index in the planes is slot * stride + position.
  // REQUIRES: used() < capacity() and length(sequence) < stride().
  int64_t Append(int32_t sequence);
  // Says that the layer's rows of this cell are written by the graph about to run. REQUIRES: those before it are.
  void MarkWritten(int il, int64_t cell);
  // Keeps the sequence's first `length` cells; memory of the others goes back at once. With 0 the slot is free again.
  void Truncate(int32_t sequence, int64_t length);
  // True if all cells of the sequence have rows in the layer (vacuously for an empty sequence).
  bool Complete(int il, int32_t sequence) const;

  // Committed bytes over all layers.
  uint64_t committed_bytes() const;

 private:
  struct Layer {
    Region region;
    GgmlContext context;
    GgmlBuffer buffer;  // declared last: goes before the region it may lie over
    ggml_tensor* key = nullptr;
    ggml_tensor* value = nullptr;
    std::vector<int64_t> rows;  // per slot: rows [0, n) are written
  };
  struct SlotState {
    bool taken = false;
    int64_t length = 0;
  };

  size_t LayerIndex(int il) const { return options_.shared ? 0 : static_cast<size_t>(il); }
  void MakeRotations();
  // Zeroes or discards rows [keep, written) of the slot.
  void GiveBack(Layer& layer, int slot, int64_t keep, int64_t written);

  const HyperParameters hparams_;
  const Device* device_;
  KvOptions options_;
  KvGeometry geometry_;
  GgmlContext rotation_context_;
  GgmlBuffer rotation_buffer_;
  ggml_tensor* key_rotation_ = nullptr;
  ggml_tensor* value_rotation_ = nullptr;
  std::vector<Layer> layers_;
  int64_t stride_ = 0;
  std::vector<SlotState> slots_;
  std::map<int32_t, int> slot_of_;
  int64_t used_ = 0;
};

}  // namespace espalier
