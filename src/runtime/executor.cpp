#include "runtime/executor.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/stopwatch.h"

namespace espalier {

int MaxMixedTokens(int n_ubatch) { return std::max(1, n_ubatch / 2); }

Executor::Executor(const HyperParameters& hparams, Device* device, const ComputeLimits& limits)
    : hparams_(hparams),
      device_(device),
      limits_(limits),
      allocator_(ggml_gallocr_new(device->buffer_type())),
      body_(hparams, GraphBuilder::Purpose::kBody, limits.max_groups),
      head_(hparams, GraphBuilder::Purpose::kHead) {}

// Which of them needs most depends on the gaps that the allocator's first fit leaves in front of the largest buffers:
// between blocks and at the end, with all rows or one less coming out.
std::vector<BatchShape> Executor::WorstShapes(const KvCache& kv) const {
  const auto n_block = static_cast<size_t>(2 * hparams_.n_layer);
  const auto on_all_rows = [](size_t) { return kAllRows; };
  const auto up_to_attention = [&](size_t b) { return b + 1 < n_block ? kAllRows : kNoRows; };
  const auto on_none = [](size_t) { return kNoRows; };
  const auto on_a_subset = [](size_t b) { return b % 4 < 2 ? kAllRows : 1; };
  const auto subset_up_to_attention = [&](size_t b) { return b + 1 < n_block ? 1 : kNoRows; };

  std::vector<BatchShape> shapes;
  const int64_t n_kv = kv.read_extent(std::min(kv.capacity(), kv.stride()));
  const auto add = [&](const std::vector<int64_t>& subset_sizes, const std::function<int(size_t)>& rows_of) {
    BatchShape shape;
    shape.n_tokens = subset_sizes[0];
    shape.subset_sizes = subset_sizes;
    shape.spare_floats =
        limits_.max_groups > 1 ? shape.n_tokens * hparams_.n_head * static_cast<int64_t>(hparams_.head_dim) : 0;
    for (const int64_t n_rows : subset_sizes) {
      shape.groups.push_back({{0, n_rows, 1, 0, n_kv}});
    }
    for (size_t b = 0; b < n_block; ++b) {
      shape.block_rows.push_back(rows_of(b));
    }
    for (const int64_t n : {int64_t{limits_.head_rows}, shape.n_tokens - 1, shape.n_tokens}) {
      shape.n_output = std::min(n, shape.n_tokens);
      shape.with_head = n <= limits_.head_rows;
      shape.gathers_output = shape.n_output < shape.n_tokens;
      shapes.push_back(shape);
    }
    shape.gathers_output = true;
    shapes.push_back(shape);
    if (limits_.max_groups > 1 && shape.n_tokens > 1) {  // for its operations: a device may lack one of them
      shape.groups[0] = {{0, 1, 1, 0, n_kv}, {1, shape.n_tokens - 1, 1, 0, n_kv}};
      shapes.push_back(shape);
    }
  };
  add({limits_.n_ubatch}, on_all_rows);
  add({limits_.n_ubatch}, up_to_attention);
  add({limits_.n_ubatch}, on_none);
  if (limits_.n_ubatch > 1) {
    const int64_t n = MaxMixedTokens(limits_.n_ubatch);
    add({n, n}, on_a_subset);
    add({n, n}, subset_up_to_attention);
  }
  return shapes;
}

Status Executor::ForEachWorstCase(const ModelTensors& tensors, const KvOptions& kv,
                                  const std::function<Status(const Graph&)>& each) {
  KvOptions measuring_kv = kv;
  measuring_kv.measuring = true;
  KvCache planes(hparams_, device_, measuring_kv);
  for (int il = 0; il < hparams_.n_layer; ++il) {
    ESPALIER_RETURN_IF_ERROR(planes.AddLayer(il));
  }
  GraphBuilder builder(hparams_, GraphBuilder::Purpose::kMeasuring, limits_.max_groups);
  for (const BatchShape& shape : WorstShapes(planes)) {
    ESPALIER_RETURN_IF_ERROR(each(builder.Build(shape, tensors, planes)));
  }
  return each(builder.BuildHead(limits_.head_rows, tensors));
}

ComputeBytes Executor::Measure(const ModelTensors& measuring_tensors, const KvOptions& kv) {
  ComputeBytes bytes;
  const Status status = ForEachWorstCase(measuring_tensors, kv, [&](const Graph& graph) {
    const GgmlAllocator sizing(ggml_gallocr_new(device_->buffer_type()));
    size_t size = 0;
    ggml_gallocr_reserve_n_size(sizing.get(), graph.graph, nullptr, nullptr, &size);
    bytes.graph_bytes = std::max<uint64_t>(bytes.graph_bytes, size);
    bytes.work_bytes += device_->GrowScratchFor(graph.graph);
    return Status::Ok();
  });
  ESPALIER_CHECK(status.ok());
  const auto n_rows = static_cast<uint64_t>(limits_.n_ubatch > limits_.head_rows ? limits_.n_ubatch : 0);
  bytes.host_bytes = body_.metadata_bytes() + head_.metadata_bytes() +
                     n_rows * static_cast<uint64_t>(hparams_.n_embd) * sizeof(float) +
                     (device_->is_host() ? 0
                                         : static_cast<uint64_t>(limits_.head_rows) *
                                               static_cast<uint64_t>(hparams_.n_vocab) * sizeof(float));
  return bytes;
}

Status Executor::Reserve(const ModelTensors& measuring_tensors, const KvOptions& kv) {
  const auto reserve = [&](const Graph& graph) -> Status {
    ESPALIER_RETURN_IF_ERROR(device_->CheckSupported(graph.graph));
    if (!ggml_gallocr_reserve(allocator_.get(), graph.graph)) {
      return Status(ErrorCode::kIo,
                    fmt::format("compute buffer cannot be allocated on {}: {}", device_->name(), TakeLastGgmlError()));
    }
    return Status::Ok();
  };
  ESPALIER_RETURN_IF_ERROR(ForEachWorstCase(measuring_tensors, kv, reserve));
  CommitBuffer();
  if (limits_.n_ubatch > limits_.head_rows) {
    hidden_.resize(static_cast<size_t>(limits_.n_ubatch) * static_cast<size_t>(hparams_.n_embd));
  }
  return Status::Ok();
}

// The allocator does not show its buffer; a graph of one node does.
void Executor::CommitBuffer() {
  const GgmlContext context(
      ggml_init({4 * ggml_tensor_overhead() + ggml_graph_overhead_custom(4, false), nullptr, /*no_alloc=*/true}));
  ggml_cgraph* graph = ggml_new_graph_custom(context.get(), 4, false);
  ggml_tensor* input = ggml_new_tensor_1d(context.get(), GGML_TYPE_F32, 1);
  ggml_set_input(input);
  ggml_build_forward_expand(graph, ggml_scale(context.get(), input, 1.0F));
  ESPALIER_CHECK(ggml_gallocr_alloc_graph(allocator_.get(), graph));
  ggml_backend_buffer_clear(input->buffer, 0);
}

uint64_t Executor::graph_bytes() const { return ggml_gallocr_get_buffer_size(allocator_.get(), 0); }

Status Executor::Run(BatchShape shape, const ModelTensors& tensors, const KvCache& kv,
                     const std::function<void(const Graph&)>& fill, const LogitsSink& sink) {
  shape.with_head = shape.n_output <= limits_.head_rows;
  Stopwatch watch;
  if (reusable_ && shape == shape_) {
    ++statistics_.graphs_reused;
  } else {
    reusable_ = false;
    current_ = body_.Build(shape, tensors, kv);
    ESPALIER_CHECK(ggml_gallocr_alloc_graph(allocator_.get(), current_.graph));
    shape_ = shape;
    ++statistics_.graphs_built;
  }
  statistics_.build_ms += watch.Lap();
  fill(current_);
  statistics_.input_ms += watch.Lap();
  if (ggml_graph_n_nodes(current_.graph) > 0) {
    ESPALIER_RETURN_IF_ERROR(device_->Compute(current_.graph));
  }
  statistics_.compute_ms += watch.Lap();
  reusable_ = true;
  if (shape.n_output == 0) {
    return Status::Ok();
  }
  if (shape.with_head) {
    DeliverLogits(current_.logits, 0, logits_, sink);
    return Status::Ok();
  }
  return RunHeadInChunks(current_, shape.n_output, tensors, sink);
}

Status Executor::RunHeadInChunks(const Graph& body, int64_t n_rows, const ModelTensors& tensors,
                                 const LogitsSink& sink) {
  const auto n_embd = static_cast<size_t>(hparams_.n_embd);
  ggml_backend_tensor_get(body.hidden, hidden_.data(), 0, static_cast<size_t>(n_rows) * n_embd * sizeof(float));
  reusable_ = false;  // the head's graph takes over the compute buffer
  for (int64_t first = 0; first < n_rows; first += limits_.head_rows) {
    const int64_t n = std::min<int64_t>(limits_.head_rows, n_rows - first);
    Stopwatch watch;
    const Graph head = head_.BuildHead(n, tensors);
    ESPALIER_CHECK(ggml_gallocr_alloc_graph(allocator_.get(), head.graph));
    statistics_.build_ms += watch.Lap();
    ggml_backend_tensor_set(head.hidden, hidden_.data() + static_cast<size_t>(first) * n_embd, 0,
                            static_cast<size_t>(n) * n_embd * sizeof(float));
    ESPALIER_RETURN_IF_ERROR(device_->Compute(head.graph));
    statistics_.compute_ms += watch.Lap();
    DeliverLogits(head.logits, first, logits_, sink);
  }
  return Status::Ok();
}

void DeliverLogits(ggml_tensor* logits, int64_t first_row, std::vector<float>& copy, const LogitsSink& sink) {
  const auto n_vocab = static_cast<size_t>(logits->ne[0]);
  const auto n_rows = static_cast<size_t>(logits->ne[1]);
  const float* data = nullptr;
  if (ggml_backend_buffer_is_host(logits->buffer)) {
    data = static_cast<const float*>(logits->data);
  } else {
    copy.resize(n_rows * n_vocab);
    ggml_backend_tensor_get(logits, copy.data(), 0, copy.size() * sizeof(float));
    data = copy.data();
  }
  for (size_t row = 0; row < n_rows; ++row) {
    sink(first_row + static_cast<int64_t>(row), {data + row * n_vocab, n_vocab});
  }
}

}  // namespace espalier
