// A compute device of ggml's registry, opened: backend, buffer types, threads, abort. And owners for ggml's objects.
#pragma once

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"

namespace espalier {

struct GgmlContextDeleter {
  void operator()(ggml_context* context) const { ggml_free(context); }
};
using GgmlContext = std::unique_ptr<ggml_context, GgmlContextDeleter>;
struct GgmlBufferDeleter {
  void operator()(ggml_backend_buffer_t buffer) const { ggml_backend_buffer_free(buffer); }
};
using GgmlBuffer = std::unique_ptr<std::remove_pointer_t<ggml_backend_buffer_t>, GgmlBufferDeleter>;
struct GgmlAllocatorDeleter {
  void operator()(ggml_gallocr_t allocator) const { ggml_gallocr_free(allocator); }
};
using GgmlAllocator = std::unique_ptr<std::remove_pointer_t<ggml_gallocr_t>, GgmlAllocatorDeleter>;

// ggml reports through a global log callback; this routes it to nowhere except for errors, which the next Status
// message may quote. Thread-safe.
std::string TakeLastGgmlError();

// ggml's name of the first GPU; empty if there is none.
std::string FirstGpu();

// Thread rule: the owner's thread only, except RequestAbort.
class Device {
 public:
  // By ggml's name ("CPU", "CUDA0"), or "RPC:host:port" for a ggml RPC server; empty: the CPU. n_threads 0: all
  // cores. The error lists the devices there are.
  static Result<std::unique_ptr<Device>> Open(const std::string& name, int n_threads);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  ggml_backend_t backend() const { return backend_; }
  ggml_backend_dev_t dev() const { return dev_; }
  const std::string& name() const { return name_; }
  int n_threads() const { return n_threads_; }
  // The device's ordinary memory.
  ggml_backend_buffer_type_t buffer_type() const { return buffer_type_; }
  // Its memory is ours to address, and buffers can be laid over regions of our own.
  bool is_host() const { return is_host_; }
  // Buffer types that rewrite weights for faster kernels (AMX, repack), in the order libllama tries them.
  const std::vector<ggml_backend_buffer_type_t>& repacking_buffer_types() const { return repacking_; }

  // kUnsupported, naming the operation, if the device cannot run the graph.
  Status CheckSupported(ggml_cgraph* graph) const;
  // Runs the graph. kAborted if RequestAbort was called before or meanwhile; the request is then spent.
  Status Compute(ggml_cgraph* graph);
  void RequestAbort() { abort_ = true; }
  bool ConsumeAbort() { return abort_.exchange(false); }

  // Bytes of heap that the backend holds as scratch after it has planned `graph` (it only ever grows). The graph's
  // first node is executed and must be allocated; the rest is not run: the abort callback stops it.
  uint64_t GrowScratchFor(ggml_cgraph* graph);

 private:
  Device() = default;
  void WarmUp();

  std::string name_;
  ggml_backend_dev_t dev_ = nullptr;
  ggml_backend_t backend_ = nullptr;
  ggml_backend_buffer_type_t buffer_type_ = nullptr;
  std::vector<ggml_backend_buffer_type_t> repacking_;
  bool is_host_ = false;
  bool can_abort_ = false;
  int n_threads_ = 0;
  std::atomic<bool> abort_ = false;
};

}  // namespace espalier
