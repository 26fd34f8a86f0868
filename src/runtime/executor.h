// Runs graphs: builds or reuses them, holds the compute buffer, and measures beforehand how large it has to be.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/status.h"
#include "runtime/device.h"
#include "runtime/engine.h"
#include "runtime/graph.h"

namespace espalier {

// The largest sub-batch that will be run.
struct ComputeLimits {
  int n_ubatch = 512;
  int head_rows = 64;
  int max_groups = 1;  // MaxAttentionGroups
};

struct ComputeBytes {
  uint64_t graph_bytes = 0;  // ggml's graph allocator
  uint64_t work_bytes = 0;   // the backend's scratch, where it lives on the host
  uint64_t host_bytes = 0;   // graph metadata and copies of rows
};

// A sub-batch with row subsets runs on at most this many tokens, so that the masks of its subsets together are no
// larger than the one mask of a full sub-batch.
int MaxMixedTokens(int n_ubatch);

// Thread rule: the owner's thread only.
class Executor {
 public:
  Executor(const HyperParameters& hparams, Device* device, const ComputeLimits& limits);

  // Sizes of everything that the limits can need: size-only graph calls over tensors without data. Grows the
  // device's scratch to its final size.
  ComputeBytes Measure(const ModelTensors& measuring_tensors, const KvOptions& kv);
  // Reserves and commits the compute buffer for the limits. Fails with kIo if memory fails, and with kUnsupported,
  // naming the operation, if the device cannot run the graph.
  Status Reserve(const ModelTensors& measuring_tensors, const KvOptions& kv);
  uint64_t graph_bytes() const;

  // Runs one sub-batch: `fill` sets the graph's inputs; `sink` receives rows 0 ... n_output - 1, head_rows at a time
  // at most. shape.with_head is chosen here.
  Status Run(BatchShape shape, const ModelTensors& tensors, const KvCache& kv,
             const std::function<void(const Graph&)>& fill, const LogitsSink& sink);

  // Forgets the graph kept for reuse: call when tensors go.
  void Invalidate() { reusable_ = false; }

  const DecodeStatistics& statistics() const { return statistics_; }

 private:
  // Shapes that between them need as much memory as any within the limits.
  std::vector<BatchShape> WorstShapes(const KvCache& kv) const;
  // Calls `each` with every worst-case graph, one after the other.
  Status ForEachWorstCase(const ModelTensors& tensors, const KvOptions& kv,
                          const std::function<Status(const Graph&)>& each);
  // Touches the whole compute buffer, so that a later step cannot run out of memory for it.
  void CommitBuffer();
  Status RunHeadInChunks(const Graph& body, int64_t n_rows, const ModelTensors& tensors, const LogitsSink& sink);

  const HyperParameters hparams_;
  Device* device_;
  const ComputeLimits limits_;
  GgmlAllocator allocator_;
  GraphBuilder body_;
  GraphBuilder head_;
  BatchShape shape_;  // of current_, if reusable_
  Graph current_;
  bool reusable_ = false;
  std::vector<float> hidden_;  // rows between body and head
  std::vector<float> logits_;  // rows of a device's logits
  DecodeStatistics statistics_;
};

// Hands rows of computed logits [n_vocab, n] to the sink, numbered from first_row; `copy` is used where they are not
// ours to address.
void DeliverLogits(ggml_tensor* logits, int64_t first_row, std::vector<float>& copy, const LogitsSink& sink);

// Fills an input tensor: `write(span)` on its memory if that is ours to address, on a copy that is uploaded otherwise.
// Inputs that no node uses have no buffer and are passed over.
template <class T, class Write>
void FillInput(ggml_tensor* tensor, Write write) {
  if (tensor == nullptr || tensor->buffer == nullptr) {
    return;
  }
  const auto n = static_cast<size_t>(ggml_nelements(tensor));
  if (ggml_backend_buffer_is_host(tensor->buffer)) {
    write(std::span(static_cast<T*>(tensor->data), n));
  } else {
    std::vector<T> copy(n);
    write(std::span(copy));
    ggml_backend_tensor_set(tensor, copy.data(), 0, n * sizeof(T));
  }
}

}  // namespace espalier
