#include "runtime/block_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "base/check.h"
#include "runtime/device.h"
#include "runtime/engine_setup.h"
#include "runtime/executor.h"
#include "runtime/graph.h"
#include "runtime/kv_cache.h"
#include "runtime/weights.h"

namespace espalier {
namespace {

constexpr SequenceId kWindow = 0;

KvOptions SharedKv(const EngineOptions& options) {
  KvOptions kv = KvOptionsOf(options);
  kv.shared = true;
  return kv;
}

class BlockRunnerImpl final : public BlockRunner {
 public:
  BlockRunnerImpl(std::shared_ptr<const Model> model, const EngineOptions& options, std::unique_ptr<Device> device,
                  int max_resident_blocks)
      : model_(std::move(model)),
        options_(options),
        max_resident_blocks_(max_resident_blocks),
        device_(std::move(device)),
        kv_(model_->hparams(), device_.get(), SharedKv(options_)),
        weights_(model_, device_.get(), WeightOptionsOf(options_)),
        allocator_(ggml_gallocr_new(device_->buffer_type())),
        body_(model_->hparams(), GraphBuilder::Purpose::kBody),
        ends_(model_->hparams(), GraphBuilder::Purpose::kHead) {
    options_.n_threads = device_->n_threads();
  }

  Status Start();

  const Model& model() const override { return *model_; }
  const EngineOptions& options() const override { return options_; }

  Status Embed(std::span<const int32_t> tokens, std::span<float> hidden) override;
  Status Run(BlockId block, std::span<const float> in, std::span<float> out) override {
    return RunAll({&block, 1}, in, out);
  }
  Status RunAll(std::span<const BlockId> blocks, std::span<const float> in, std::span<float> out) override;
  Status Head(std::span<const float> hidden, const LogitsSink& sink) override;
  Status FinalNorm(std::span<const float> hidden, std::span<float> normed) override;
  const HeadRows* head_rows() const override { return head_rows_ ? &*head_rows_ : nullptr; }

  double BlockFlops(BlockId block, int64_t n_tokens) const override;
  double HeadFlops(int64_t n_tokens) const override;
  uint64_t loaded_bytes() const override { return loaded_bytes_; }
  uint64_t peak_bytes() const override { return peak_bytes_; }
  void RequestAbort() override { device_->RequestAbort(); }

 private:
  bool limited() const { return max_resident_blocks_ > 0; }
  int64_t n_embd() const { return model_->hparams().n_embd; }

  Status CheckWindow(int64_t n_tokens) const;
  Status CheckRows(std::span<const BlockId> blocks, size_t in, size_t out) const;
  // Buffers for the largest graphs, checked against what the device can compute.
  Status ReserveCompute();
  // The inputs and the KV cells of a window of n tokens; nothing to do if the last one was as long.
  Status UseWindow(int64_t n_tokens);
  void FillWindow(int64_t n_tokens);
  Status MakeResident(BlockId block);
  Status Load(std::span<const BlockId> blocks);
  // Memory for the graph's activations. Graphs allocated before stay valid while the buffer stays.
  void Allocate(ggml_cgraph* graph);
  void NotePeak(uint64_t staging = 0);
  Status RunResident(std::span<const BlockId> blocks, std::span<const float> in, std::span<float> out);

  std::shared_ptr<const Model> model_;
  EngineOptions options_;
  const int max_resident_blocks_;
  std::unique_ptr<Device> device_;
  KvCache kv_;
  WeightStore weights_;
  std::optional<HeadRows> head_rows_;
  std::vector<BlockId> by_use_;  // resident blocks where they are limited, the least recently used first

  GgmlContext window_context_;
  GgmlBuffer window_buffer_;
  WindowInputs window_;
  int64_t window_tokens_ = 0;

  GgmlAllocator allocator_;
  GraphBuilder body_;
  GraphBuilder ends_;             // embedding and head
  std::vector<BlockId> current_;  // blocks of graph_; empty: it cannot be run again
  Graph graph_;
  std::vector<float> logits_;  // rows of a device's logits

  uint64_t scratch_bytes_ = 0;
  uint64_t loaded_bytes_ = 0;
  uint64_t peak_bytes_ = 0;
};

Status BlockRunnerImpl::Start() {
  ESPALIER_RETURN_IF_ERROR(kv_.AddLayer(0));
  ESPALIER_RETURN_IF_ERROR(ReserveCompute());
  ESPALIER_RETURN_IF_ERROR(weights_.LoadGlobals());
  NotePeak(weights_.global_staging_bytes());
  if (device_->is_host()) {
    head_rows_ = HeadRows::Of(weights_.tensors().head());
  }
  if (limited()) {
    return Status::Ok();
  }
  std::vector<BlockId> blocks(static_cast<size_t>(model_->n_block()));
  for (size_t b = 0; b < blocks.size(); ++b) {
    blocks[b] = {static_cast<int>(b)};
  }
  return Load(blocks);
}

Status BlockRunnerImpl::ReserveCompute() {
  ESPALIER_RETURN_IF_ERROR(UseWindow(options_.n_ubatch));
  const ModelTensors& tensors = weights_.MeasuringTensors();
  std::vector<BlockId> blocks;
  for (int b = 0; b < (limited() ? 2 : model_->n_block()); ++b) {
    blocks.push_back({b});
  }
  GraphBuilder builder(model_->hparams(), GraphBuilder::Purpose::kMeasuring);
  const auto reserve = [&](const Graph& graph) -> Status {
    ESPALIER_RETURN_IF_ERROR(device_->CheckSupported(graph.graph));
    scratch_bytes_ += device_->GrowScratchFor(graph.graph);
    if (!ggml_gallocr_reserve(allocator_.get(), graph.graph)) {
      return IoError(fmt::format("compute buffer cannot be allocated on {}: {}", device_->name(), TakeLastGgmlError()));
    }
    return Status::Ok();
  };
  ESPALIER_RETURN_IF_ERROR(reserve(builder.BuildBlocks(blocks, window_, tensors, kv_)));
  ESPALIER_RETURN_IF_ERROR(reserve(builder.BuildEmbedding(options_.n_ubatch, tensors)));
  return reserve(builder.BuildHead(options_.head_rows, tensors, /*normed=*/false));
}

void BlockRunnerImpl::NotePeak(uint64_t staging) {
  const uint64_t window = ggml_backend_buffer_get_size(window_buffer_.get());
  const uint64_t compute = ggml_gallocr_get_buffer_size(allocator_.get(), 0) + scratch_bytes_ + window +
                           body_.metadata_bytes() + ends_.metadata_bytes() + kv_.host_bytes();
  peak_bytes_ = std::max(peak_bytes_, weights_.resident_bytes() + kv_.committed_bytes() + compute + staging);
}

Status BlockRunnerImpl::CheckWindow(int64_t n_tokens) const {
  if (n_tokens < 1 || n_tokens > options_.n_ubatch) {
    return InvalidArgument(fmt::format("window of {} tokens: expected 1 to {}", n_tokens, options_.n_ubatch));
  }
  return Status::Ok();
}

Status BlockRunnerImpl::CheckRows(std::span<const BlockId> blocks, size_t in, size_t out) const {
  const auto row_size = static_cast<size_t>(n_embd());
  if (in != out || in % row_size != 0) {
    return InvalidArgument(
        fmt::format("activations of {} and {} numbers: expected as many, in rows of {}", in, out, row_size));
  }
  for (const BlockId block : blocks) {
    if (block.index < 0 || block.index >= model_->n_block()) {
      return InvalidArgument(fmt::format("block {}: expected 0 to {}", block.index, model_->n_block() - 1));
    }
  }
  return CheckWindow(static_cast<int64_t>(in / row_size));
}

Status BlockRunnerImpl::UseWindow(int64_t n_tokens) {
  if (n_tokens == window_tokens_) {
    return Status::Ok();
  }
  current_.clear();
  window_tokens_ = 0;
  // Cells beyond the window must read as zero: those of a longer window go.
  kv_.Truncate(kWindow, 0);
  kv_.TakeSlot(kWindow);
  for (int64_t position = 0; position < n_tokens; ++position) {
    kv_.MarkWritten(0, kv_.Append(kWindow));
  }
  window_buffer_.reset();
  window_context_ = NewMetadataContext(4);
  ggml_context* const c = window_context_.get();
  window_.hidden = ggml_new_tensor_2d(c, GGML_TYPE_F32, n_embd(), n_tokens);
  window_.rows.positions = ggml_new_tensor_1d(c, GGML_TYPE_I32, n_tokens);
  window_.rows.cells = ggml_new_tensor_1d(c, GGML_TYPE_I64, n_tokens);
  const AttentionGroup all = {0, n_tokens, 1, kv_.slot(kWindow), kv_.read_extent(n_tokens)};
  window_.rows.groups = {all};
  window_.rows.masks = {ggml_new_tensor_2d(c, GGML_TYPE_F16, all.n_kv, n_tokens)};
  window_buffer_.reset(ggml_backend_alloc_ctx_tensors_from_buft(c, device_->buffer_type()));
  if (window_buffer_ == nullptr) {
    return IoError(fmt::format("window of {} tokens cannot be allocated on {}: {}", n_tokens, device_->name(),
                               TakeLastGgmlError()));
  }
  FillWindow(n_tokens);
  window_tokens_ = n_tokens;
  NotePeak();
  return Status::Ok();
}

void BlockRunnerImpl::FillWindow(int64_t n_tokens) {
  FillInput<int32_t>(window_.rows.positions,
                     [](std::span<int32_t> out) { std::iota(out.begin(), out.end(), int32_t{0}); });
  FillInput<int64_t>(window_.rows.cells, [](std::span<int64_t> out) { std::iota(out.begin(), out.end(), int64_t{0}); });
  FillInput<ggml_fp16_t>(window_.rows.masks.front(), [&](std::span<ggml_fp16_t> out) {
    const int64_t n_kv = window_.rows.groups.front().n_kv;
    std::fill(out.begin(), out.end(), ggml_fp32_to_fp16(-INFINITY));
    for (int64_t row = 0; row < n_tokens; ++row) {
      std::fill_n(out.begin() + row * n_kv, row + 1, ggml_fp32_to_fp16(0.0F));
    }
  });
}

Status BlockRunnerImpl::Load(std::span<const BlockId> blocks) {
  uint64_t staging = 0;
  for (const BlockId block : blocks) {
    staging = std::max(staging, weights_.staging_bytes(block));
    loaded_bytes_ += weights_.block_bytes(block);
  }
  const Status status = weights_.Load(blocks);
  NotePeak(staging);
  return status;
}

Status BlockRunnerImpl::MakeResident(BlockId block) {
  if (!limited()) {
    return Status::Ok();
  }
  const auto found = std::find(by_use_.begin(), by_use_.end(), block);
  if (found != by_use_.end()) {
    std::rotate(found, found + 1, by_use_.end());
    return Status::Ok();
  }
  if (by_use_.size() == static_cast<size_t>(max_resident_blocks_)) {
    weights_.Release(by_use_.front());
    by_use_.erase(by_use_.begin());
    current_.clear();  // the graph may name its tensors
  }
  ESPALIER_RETURN_IF_ERROR(Load({&block, 1}));
  by_use_.push_back(block);
  return Status::Ok();
}

void BlockRunnerImpl::Allocate(ggml_cgraph* graph) {
  const uint64_t before = ggml_gallocr_get_buffer_size(allocator_.get(), 0);
  ESPALIER_CHECK(ggml_gallocr_alloc_graph(allocator_.get(), graph));
  if (ggml_gallocr_get_buffer_size(allocator_.get(), 0) != before) {
    current_.clear();
    NotePeak();
  }
}

Status BlockRunnerImpl::Embed(std::span<const int32_t> tokens, std::span<float> hidden) {
  ESPALIER_RETURN_IF_ERROR(CheckWindow(static_cast<int64_t>(tokens.size())));
  if (hidden.size() != tokens.size() * static_cast<size_t>(n_embd())) {
    return InvalidArgument(
        fmt::format("room for {} numbers: expected {} tokens times {}", hidden.size(), tokens.size(), n_embd()));
  }
  const int n_vocab = model_->hparams().n_vocab;
  for (const int32_t token : tokens) {
    if (token < 0 || token >= n_vocab) {
      return InvalidArgument(fmt::format("token {}: expected 0 to {}", token, n_vocab - 1));
    }
  }
  const Graph graph = ends_.BuildEmbedding(static_cast<int64_t>(tokens.size()), weights_.tensors());
  Allocate(graph.graph);
  ggml_backend_tensor_set(graph.tokens, tokens.data(), 0, tokens.size_bytes());
  ESPALIER_RETURN_IF_ERROR(device_->Compute(graph.graph));
  ggml_backend_tensor_get(graph.hidden, hidden.data(), 0, hidden.size_bytes());
  return Status::Ok();
}

Status BlockRunnerImpl::RunAll(std::span<const BlockId> blocks, std::span<const float> in, std::span<float> out) {
  ESPALIER_RETURN_IF_ERROR(CheckRows(blocks, in.size(), out.size()));
  if (blocks.empty()) {
    std::copy(in.begin(), in.end(), out.begin());
    return Status::Ok();
  }
  ESPALIER_RETURN_IF_ERROR(UseWindow(static_cast<int64_t>(in.size()) / n_embd()));
  if (!limited()) {
    return RunResident(blocks, in, out);
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    ESPALIER_RETURN_IF_ERROR(MakeResident(blocks[i]));
    ESPALIER_RETURN_IF_ERROR(RunResident(blocks.subspan(i, 1), i == 0 ? in : out, out));
  }
  return Status::Ok();
}

Status BlockRunnerImpl::RunResident(std::span<const BlockId> blocks, std::span<const float> in, std::span<float> out) {
  if (!std::equal(blocks.begin(), blocks.end(), current_.begin(), current_.end())) {
    graph_ = body_.BuildBlocks(blocks, window_, weights_.tensors(), kv_);
    Allocate(graph_.graph);
    current_.assign(blocks.begin(), blocks.end());
  }
  ggml_backend_tensor_set(window_.hidden, in.data(), 0, in.size_bytes());
  ESPALIER_RETURN_IF_ERROR(device_->Compute(graph_.graph));
  ggml_backend_tensor_get(graph_.hidden, out.data(), 0, out.size_bytes());
  return Status::Ok();
}

Status BlockRunnerImpl::Head(std::span<const float> hidden, const LogitsSink& sink) {
  const auto row_size = static_cast<size_t>(n_embd());
  if (hidden.size() % row_size != 0) {
    return InvalidArgument(
        fmt::format("hidden rows of {} numbers: expected a multiple of {}", hidden.size(), row_size));
  }
  const auto n_rows = static_cast<int64_t>(hidden.size() / row_size);
  for (int64_t first = 0; first < n_rows; first += options_.head_rows) {
    const int64_t n = std::min<int64_t>(options_.head_rows, n_rows - first);
    const auto rows = hidden.subspan(static_cast<size_t>(first) * row_size, static_cast<size_t>(n) * row_size);
    const Graph head = ends_.BuildHead(n, weights_.tensors(), /*normed=*/false);
    Allocate(head.graph);
    ggml_backend_tensor_set(head.hidden, rows.data(), 0, rows.size_bytes());
    ESPALIER_RETURN_IF_ERROR(device_->Compute(head.graph));
    DeliverLogits(head.logits, first, logits_, sink);
  }
  return Status::Ok();
}

Status BlockRunnerImpl::FinalNorm(std::span<const float> hidden, std::span<float> normed) {
  ESPALIER_RETURN_IF_ERROR(CheckRows({}, hidden.size(), normed.size()));
  const Graph graph = ends_.BuildNorm(static_cast<int64_t>(hidden.size()) / n_embd(), weights_.tensors());
  Allocate(graph.graph);
  ggml_backend_tensor_set(graph.hidden, hidden.data(), 0, hidden.size_bytes());
  ESPALIER_RETURN_IF_ERROR(device_->Compute(graph.graph));
  ggml_backend_tensor_get(graph.normed, normed.data(), 0, normed.size_bytes());
  return Status::Ok();
}

double BlockRunnerImpl::BlockFlops(BlockId block, int64_t n_tokens) const {
  double multiply_adds = 0;
  for (const TensorInfo* tensor : model_->block(block).by_role) {
    if (tensor != nullptr && tensor->n_dims == 2) {
      multiply_adds += static_cast<double>(tensor->ne[0]) * static_cast<double>(tensor->ne[1]);
    }
  }
  if (block.is_attention()) {
    const HyperParameters& hparams = model_->hparams();
    multiply_adds += 2.0 * static_cast<double>(n_tokens) * hparams.n_head * hparams.head_dim;
  }
  return 2.0 * static_cast<double>(n_tokens) * multiply_adds;
}

double BlockRunnerImpl::HeadFlops(int64_t n_tokens) const {
  return 2.0 * static_cast<double>(n_tokens) * static_cast<double>(n_embd()) * model_->hparams().n_vocab;
}

}  // namespace

Result<std::unique_ptr<BlockRunner>> BlockRunner::Create(std::shared_ptr<const Model> model,
                                                         const EngineOptions& options, int max_resident_blocks) {
  if (max_resident_blocks < 0) {
    return InvalidArgument(fmt::format("{} resident blocks at most: expected 0 (all) or more", max_resident_blocks));
  }
  EngineOptions asked = options;
  asked.n_ctx = 0;
  asked.means.reset();
  ESPALIER_ASSIGN_OR_RETURN(EngineOptions complete, CompleteOptions(*model, asked));
  complete.n_ctx = complete.n_ubatch;
  complete.max_sequences = 1;
  ESPALIER_ASSIGN_OR_RETURN(auto device, Device::Open(complete.device, complete.n_threads));
  auto runner = std::make_unique<BlockRunnerImpl>(std::move(model), complete, std::move(device), max_resident_blocks);
  ESPALIER_RETURN_IF_ERROR(runner->Start());
  return std::unique_ptr<BlockRunner>(std::move(runner));
}

}  // namespace espalier
