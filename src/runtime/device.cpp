#include "runtime/device.h"

#include <fmt/format.h>
#include <malloc.h>

#include <mutex>
#include <string_view>
#include <thread>

#include "base/check.h"
#include "base/region.h"

namespace espalier {
namespace {

std::mutex log_mutex;
std::string last_error;  // guarded by log_mutex

void KeepErrors(ggml_log_level level, const char* text, void* /*user_data*/) {
  if (level == GGML_LOG_LEVEL_ERROR) {
    const std::lock_guard lock(log_mutex);
    last_error = text;
    while (!last_error.empty() && last_error.back() == '\n') {
      last_error.pop_back();
    }
  }
}

void LoadBackendsOnce() {
  static std::once_flag once;
  std::call_once(once, [] {
    ggml_log_set(KeepErrors, nullptr);
    ggml_backend_load_all();
  });
}

template <class Function>
Function ProcAddress(ggml_backend_reg_t reg, const char* name) {
  return reinterpret_cast<Function>(ggml_backend_reg_get_proc_address(reg, name));
}

std::string DeviceNames() {
  std::string names;
  for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
    names += (names.empty() ? "" : ", ") + std::string(ggml_backend_dev_name(ggml_backend_dev_get(i)));
  }
  return names;
}

// The first device of the RPC server at `endpoint` ("host:port"); nullptr if ggml was built without RPC or nothing
// answers there.
ggml_backend_dev_t RpcDevice(const std::string& endpoint) {
  ggml_backend_reg_t rpc = ggml_backend_reg_by_name("RPC");
  if (rpc == nullptr) {
    return nullptr;
  }
  using AddServer = ggml_backend_reg_t (*)(const char*);
  const auto add_server = ProcAddress<AddServer>(rpc, "ggml_backend_rpc_add_server");
  ggml_backend_reg_t server = add_server != nullptr ? add_server(endpoint.c_str()) : nullptr;
  return server != nullptr && ggml_backend_reg_dev_count(server) > 0 ? ggml_backend_reg_dev_get(server, 0) : nullptr;
}

ggml_backend_dev_t FindDevice(const std::string& name) {
  constexpr std::string_view kRpc = "RPC:";
  if (name.empty()) {
    return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
  }
  if (name.starts_with(kRpc)) {
    return RpcDevice(name.substr(kRpc.size()));
  }
  return ggml_backend_dev_by_name(name.c_str());
}

// Heap growth between two moments. Large blocks are mappings of their own, counted exactly. Where there is none, growth
// of the arena counts from a page up: below that it is ggml's bookkeeping, not scratch.
uint64_t HeapGrowth(const struct mallinfo2& before, const struct mallinfo2& after) {
  if (after.hblkhd != before.hblkhd) {
    return after.hblkhd > before.hblkhd ? after.hblkhd - before.hblkhd : 0;
  }
  const uint64_t growth = after.uordblks > before.uordblks ? after.uordblks - before.uordblks : 0;
  return growth >= Region::PageSize() ? growth : 0;
}

}  // namespace

std::string FirstGpu() {
  LoadBackendsOnce();
  ggml_backend_dev_t gpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_GPU);
  return gpu != nullptr ? ggml_backend_dev_name(gpu) : "";
}

std::string TakeLastGgmlError() {
  const std::lock_guard lock(log_mutex);
  return std::exchange(last_error, {});
}

Result<std::unique_ptr<Device>> Device::Open(const std::string& name, int n_threads) {
  LoadBackendsOnce();
  if (std::string_view(ggml_version()) != ESPALIER_GGML_VERSION) {
    return Unsupported(fmt::format("ggml {} expected at run time, found {}; rebuild against the installed one",
                                   ESPALIER_GGML_VERSION, ggml_version()));
  }
  std::unique_ptr<Device> device(new Device());
  device->dev_ = FindDevice(name);
  if (device->dev_ == nullptr) {
    return NotFound(fmt::format("device '{}' not found; there are: {} (or RPC:host:port)", name, DeviceNames()));
  }
  device->name_ = ggml_backend_dev_name(device->dev_);
  device->backend_ = ggml_backend_dev_init(device->dev_, nullptr);
  if (device->backend_ == nullptr) {
    return Status(ErrorCode::kIo, fmt::format("device '{}' cannot be opened: {}", name, TakeLastGgmlError()));
  }
  device->buffer_type_ = ggml_backend_dev_buffer_type(device->dev_);
  ggml_backend_dev_props props;
  ggml_backend_dev_get_props(device->dev_, &props);
  device->is_host_ = ggml_backend_buft_is_host(device->buffer_type_) && props.caps.buffer_from_host_ptr;

  ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(device->dev_);
  device->n_threads_ = n_threads > 0 ? n_threads : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  if (const auto set = ProcAddress<ggml_backend_set_n_threads_t>(reg, "ggml_backend_set_n_threads")) {
    set(device->backend_, device->n_threads_);
  }
  if (const auto set = ProcAddress<ggml_backend_set_abort_callback_t>(reg, "ggml_backend_set_abort_callback")) {
    set(
        device->backend_, [](void* flag) { return static_cast<std::atomic<bool>*>(flag)->load(); }, &device->abort_);
    device->can_abort_ = true;
  }
  if (const auto get = ProcAddress<ggml_backend_dev_get_extra_bufts_t>(reg, "ggml_backend_dev_get_extra_bufts")) {
    for (ggml_backend_buffer_type_t* type = get(device->dev_); type != nullptr && *type != nullptr; ++type) {
      device->repacking_.push_back(*type);
    }
  }
  device->WarmUp();
  return device;
}

// Threads and their bookkeeping are allocated by the first computation: now, so that they count as the process's and
// not as a graph's scratch.
void Device::WarmUp() {
  const GgmlContext context(
      ggml_init({4 * ggml_tensor_overhead() + ggml_graph_overhead_custom(4, false), nullptr, /*no_alloc=*/true}));
  ggml_cgraph* graph = ggml_new_graph_custom(context.get(), 4, false);
  ggml_tensor* one = ggml_new_tensor_1d(context.get(), GGML_TYPE_F32, 1);
  ggml_build_forward_expand(graph, ggml_scale_inplace(context.get(), one, 1.0F));
  const GgmlBuffer buffer(ggml_backend_alloc_ctx_tensors_from_buft(context.get(), buffer_type_));
  if (buffer != nullptr) {
    ggml_backend_buffer_clear(buffer.get(), 0);
    ggml_backend_graph_compute(backend_, graph);
  }
}

Device::~Device() {
  if (backend_ != nullptr) {
    ggml_backend_free(backend_);
  }
}

Status Device::CheckSupported(ggml_cgraph* graph) const {
  for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
    const ggml_tensor* node = ggml_graph_node(graph, i);
    if (!ggml_backend_dev_supports_op(dev_, node)) {
      return Unsupported(fmt::format("device {} cannot compute {} on {}", name_, ggml_op_desc(node),
                                     node->src[0] != nullptr ? ggml_type_name(node->src[0]->type) : "nothing"));
    }
  }
  return Status::Ok();
}

Status Device::Compute(ggml_cgraph* graph) {
  if (ConsumeAbort()) {
    return Aborted("stopped on request");
  }
  const ggml_status status = ggml_backend_graph_compute(backend_, graph);
  if (status == GGML_STATUS_ABORTED) {
    ConsumeAbort();
    return Aborted("stopped on request");
  }
  if (status != GGML_STATUS_SUCCESS) {
    return Status(ErrorCode::kIo, fmt::format("device {}: computing failed ({}): {}", name_,
                                              ggml_status_to_string(status), TakeLastGgmlError()));
  }
  return Status::Ok();
}

uint64_t Device::GrowScratchFor(ggml_cgraph* graph) {
  if (!can_abort_ || !is_host_) {
    return 0;  // a device keeps its scratch in its own memory, where we cannot see it
  }
  const bool pending = abort_.exchange(true);
  const struct mallinfo2 before = mallinfo2();
  const ggml_status status = ggml_backend_graph_compute(backend_, graph);
  const struct mallinfo2 after = mallinfo2();
  abort_ = pending;
  ESPALIER_CHECK(status == GGML_STATUS_ABORTED || status == GGML_STATUS_SUCCESS);
  return HeapGrowth(before, after);
}

}  // namespace espalier
