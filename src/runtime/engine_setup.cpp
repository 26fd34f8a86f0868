#include "runtime/engine_setup.h"

#include <fmt/format.h>

#include <algorithm>

namespace espalier {
namespace {

ggml_type ToGgml(KvType type) {
  switch (type) {
    case KvType::kF16:
      return GGML_TYPE_F16;
    case KvType::kQ8_0:
      return GGML_TYPE_Q8_0;
    case KvType::kQ4_0:
      break;
  }
  return GGML_TYPE_Q4_0;
}

Status CheckMeans(const Model& model, const BlockMeans& means) {
  const int64_t n_embd = model.hparams().n_embd;
  const auto expected = static_cast<size_t>(model.n_block() * n_embd);
  if (means.n_embd != n_embd || means.values.size() != expected) {
    return InvalidArgument(fmt::format("{}: means of {} numbers in rows of {}: expected {} blocks times {}",
                                       model.path(), means.values.size(), means.n_embd, model.n_block(), n_embd));
  }
  return Status::Ok();
}

}  // namespace

Result<KvType> ParseKvType(std::string_view name) {
  for (const KvType type : {KvType::kF16, KvType::kQ8_0, KvType::kQ4_0}) {
    if (name == KvTypeName(type)) {
      return type;
    }
  }
  return InvalidArgument(fmt::format("KV type '{}': expected f16, q8_0 or q4_0", name.substr(0, 32)));
}

const char* KvTypeName(KvType type) { return ggml_type_name(ToGgml(type)); }

Result<EngineOptions> CompleteOptions(const Model& model, EngineOptions options) {
  constexpr int64_t kMaxCells = int64_t{1} << 27;
  if (options.n_ctx == 0) {
    options.n_ctx = model.hparams().n_ctx_train;
  }
  if (options.n_ctx < 1 || options.n_ctx > kMaxCells) {
    return InvalidArgument(fmt::format("context of {} cells: expected 1 to {}", options.n_ctx, kMaxCells));
  }
  constexpr int kMaxSequences = 65536;
  if (options.max_sequences < 0 || options.max_sequences > kMaxSequences) {
    return InvalidArgument(
        fmt::format("{} sequences at once: expected 0 (the default) to {}", options.max_sequences, kMaxSequences));
  }
  if (options.max_sequence_cells < 0) {
    return InvalidArgument(
        fmt::format("{} cells for each sequence: expected 0 (all) or more", options.max_sequence_cells));
  }
  if (options.n_ubatch < 1 || options.n_ubatch > 65536) {
    return InvalidArgument(fmt::format("sub-batch of {} tokens: expected 1 to 65536", options.n_ubatch));
  }
  if (options.head_rows < 1) {
    return InvalidArgument(fmt::format("{} rows of logits at once: expected 1 or more", options.head_rows));
  }
  options.head_rows = std::min(options.head_rows, options.n_ubatch);
  if (options.n_threads < 0 || options.n_threads > 512) {
    return InvalidArgument(fmt::format("{} threads: expected 0 (all cores) to 512", options.n_threads));
  }
  for (const KvType type : {options.key_type, options.value_type}) {
    const int64_t block = ggml_blck_size(ToGgml(type));
    if (model.hparams().head_dim % block != 0) {
      return Unsupported(fmt::format("{}: KV type {} needs heads of a multiple of {} elements, found {}", model.path(),
                                     KvTypeName(type), block, model.hparams().head_dim));
    }
  }
  if (options.means != nullptr) {
    ESPALIER_RETURN_IF_ERROR(CheckMeans(model, *options.means));
  }
  return options;
}

KvOptions KvOptionsOf(const EngineOptions& options) {
  return {.capacity = options.n_ctx,
          .max_sequences = options.max_sequences,
          .max_sequence_cells = options.max_sequence_cells,
          .key_type = ToGgml(options.key_type),
          .value_type = ToGgml(options.value_type)};
}

WeightOptions WeightOptionsOf(const EngineOptions& options) {
  return {options.repack, options.copy_tied_head, options.drop_page_cache, options.means};
}

ComputeLimits LimitsOf(const EngineOptions& options, const KvCache& kv) {
  return {options.n_ubatch, options.head_rows, MaxAttentionGroups(kv.n_slots())};
}

HeadPacking PackingOf(const Model& model, const EngineOptions& options, const Device& device) {
  const bool in_tiles = device.is_host() && options.key_type == KvType::kF16 && options.value_type == KvType::kF16;
  const HyperParameters& h = model.hparams();
  return {.heads_per_key = in_tiles ? h.n_head / h.n_head_kv : 1, .max_rows = options.n_ubatch};
}

Status CheckPlan(const Model& model, const Plan& plan) {
  if (plan.n_layer() != model.n_layer()) {
    return InvalidArgument(
        fmt::format("plan for {} layers given to {} with {} layers", plan.n_layer(), model.path(), model.n_layer()));
  }
  if (!plan.whole_blocks_only()) {
    return Unsupported(
        fmt::format("plan '{}': blocks can be kept whole (1) or dropped (0); widths between are not "
                    "something the engine can run",
                    plan.ToText()));
  }
  return Status::Ok();
}

MemoryModel AssembleMemoryModel(const WeightStore& weights, const KvCache& kv, const ComputeBytes& compute,
                                int n_block) {
  MemoryModel model;
  for (int b = 0; b < n_block; ++b) {
    model.block_bytes.push_back(weights.block_bytes({b}));
    model.block_staging_bytes.push_back(weights.staging_bytes({b}));
  }
  model.global_bytes = weights.global_bytes();
  model.global_staging_bytes = weights.global_staging_bytes();
  model.kv = kv.geometry();
  model.compute_bytes = compute.graph_bytes;
  model.work_bytes = compute.work_bytes;
  model.host_bytes = compute.host_bytes + kv.host_bytes();
  return model;
}

Result<MemoryModel> MeasureMemoryModel(std::shared_ptr<const Model> model, const EngineOptions& options) {
  ESPALIER_ASSIGN_OR_RETURN(const EngineOptions complete, CompleteOptions(*model, options));
  ESPALIER_ASSIGN_OR_RETURN(auto device, Device::Open(complete.device, complete.n_threads));
  const KvOptions kv_options = KvOptionsOf(complete);
  const KvCache kv(model->hparams(), device.get(), kv_options);
  WeightStore weights(model, device.get(), WeightOptionsOf(complete));
  Executor executor(model->hparams(), device.get(), LimitsOf(complete, kv));
  const ComputeBytes compute = executor.Measure(weights.MeasuringTensors(), kv_options);
  return AssembleMemoryModel(weights, kv, compute, model->n_block());
}

}  // namespace espalier
