// Which weights are in memory. The unit of residency is the block: all its tensors come and go together.
//
// Two stores, chosen per tensor the way libllama chooses (so that kernels, and with them bits, are the same):
//  * host: tensors that kernels read as they lie in the file. One region of huge pages per block, read in place.
//  * device buffer: tensors in a buffer type that rewrites them for its kernels (AMX, repack), and everything on a
//    device with memory of its own. Allocated by ggml per block and buffer type; data passes through staging.
// A released block's memory goes back to the system at once: its regions are unmapped, its buffers freed (which is why
// glibc's mmap threshold has to be pinned: ReturnFreedMemoryToSystem in base/process_memory.h).
#pragma once

#include <ggml-backend.h>
#include <ggml.h>

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "base/file.h"
#include "base/region.h"
#include "base/status.h"
#include "model/block_means.h"
#include "model/model.h"
#include "runtime/device.h"

namespace espalier {

// ggml tensors of a block (or of the globals) by role; nullptr where absent or not resident.
using TensorSet = std::array<ggml_tensor*, kTensorRoleCount>;

struct ModelTensors {
  std::vector<TensorSet> blocks;
  TensorSet globals = {};
  ggml_tensor* means = nullptr;  // f32 [n_embd, n_block]: what a skipped block adds; nullptr: nothing

  ggml_tensor* get(BlockId block, TensorRole role) const {
    return blocks[static_cast<size_t>(block.index)][static_cast<size_t>(role)];
  }
  ggml_tensor* global(TensorRole role) const { return globals[static_cast<size_t>(role)]; }
  // What the output head multiplies with: output.weight, or the token embedding (tied), or that one's rewritten copy.
  ggml_tensor* head() const {
    ggml_tensor* output = global(TensorRole::kOutput);
    return output != nullptr ? output : global(TensorRole::kTokenEmbedding);
  }
};

// A context for the metadata of `n_tensors` tensors; no data is allocated in it.
GgmlContext NewMetadataContext(size_t n_tensors);

struct WeightOptions {
  bool repack = true;
  // Tied models use the token embedding twice: looked up by row, and as the output head. Kernels for rewritten weights
  // cannot look rows up, so libllama holds a second, rewritten copy for the head. Ours is off by default: the head's
  // matrix is read once per token whatever its layout, and the copy is the largest tensor of a small model.
  bool copy_tied_head = false;
  bool drop_page_cache = false;
  // Loaded with the globals and counted among them. REQUIRES: of the model's shape.
  std::shared_ptr<const BlockMeans> means;
};

// Thread rule: the owner's thread only; never release during a compute.
class WeightStore {
 public:
  WeightStore(std::shared_ptr<const Model> model, const Device* device, const WeightOptions& options);
  WeightStore(const WeightStore&) = delete;
  WeightStore& operator=(const WeightStore&) = delete;

  // Brings the blocks' tensors in, on several threads where there is much to do (rewriting weights is bound by the
  // processor, not by memory). Fails with kIo if reading or memory fails; blocks that were complete by then stay, the
  // others are not resident; the message names one that failed. Blocks that are resident are passed over.
  Status Load(std::span<const BlockId> blocks);
  // No-op if it is not resident. REQUIRES: no graph that names its tensors is run afterwards.
  void Release(BlockId block);
  Status LoadGlobals();

  bool resident(BlockId block) const { return blocks_[static_cast<size_t>(block.index)].resident; }
  const ModelTensors& tensors() const { return tensors_; }

  // Bytes that the block holds, or would hold: buffers with padding, whole pages.
  uint64_t block_bytes(BlockId block) const { return blocks_[static_cast<size_t>(block.index)].bytes; }
  uint64_t global_bytes() const { return globals_.bytes; }
  // Bytes of staging that loading it needs for a moment.
  uint64_t staging_bytes(BlockId block) const { return blocks_[static_cast<size_t>(block.index)].staging_bytes; }
  uint64_t global_staging_bytes() const { return globals_.staging_bytes; }
  uint64_t resident_bytes() const;
  // Page cache that the model's files hold now.
  uint64_t page_cache_bytes() const;

  // Tensors for size-only graph calls: right types, shapes and buffer types, no data. Valid as long as the store.
  const ModelTensors& MeasuringTensors();

 private:
  // One tensor of a group, where it goes and where it comes from.
  struct Place {
    TensorRole role;  // kCount: the means
    const TensorInfo* info;
    ggml_backend_buffer_type_t buffer_type;
    const ByteSource* source;  // info->offset counts from its start
  };
  struct Group {
    std::vector<Place> places;
    uint64_t bytes = 0;
    uint64_t staging_bytes = 0;
    bool resident = false;
    Region region;
    std::vector<GgmlContext> contexts;
    std::vector<GgmlBuffer> buffers;  // declared last: they go before the region they may lie over
  };

  // One tensor to be read.
  struct Task {
    Group* group;
    const Place* place;
    ggml_tensor* tensor;
  };

  void PlaceMeans();
  // Where graphs look for the tensor of this place.
  ggml_tensor*& SlotOf(const Group& group, const Place& place, ModelTensors& tensors) const;
  void PlaceGroup(const TensorGroup& tensors, Group& group) const;
  void SizeGroup(Group& group) const;
  ggml_backend_buffer_type_t ChooseBufferType(const TensorInfo& info) const;
  // Memory and tensors for the group, without data; one task per tensor is added.
  Status Allocate(Group& group, std::vector<Task>& tasks) const;
  // Reads all tasks' data. A group of which a task failed has group->resident == false afterwards.
  Status FillAll(std::span<const Task> tasks) const;
  Status Fill(const Task& task, Region& staging) const;
  static void Clear(Group& group);
  bool InPlace(const Place& place) const { return device_->is_host() && place.buffer_type == ordinary(); }
  // Threads that load at once, each with staging of its own.
  int n_loaders() const;
  ggml_backend_buffer_type_t ordinary() const { return device_->buffer_type(); }

  std::shared_ptr<const Model> model_;
  const Device* device_;
  WeightOptions options_;
  TensorInfo means_info_;
  std::unique_ptr<MemorySource> means_source_;
  std::vector<Group> blocks_;
  Group globals_;
  ModelTensors tensors_;

  ModelTensors measuring_;
  GgmlContext measuring_context_;
  std::vector<GgmlBuffer> measuring_buffers_;
};

}  // namespace espalier
