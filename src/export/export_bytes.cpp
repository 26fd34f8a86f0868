#include "export/export_bytes.h"

#include <span>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "export/export_target.h"
#include "export/placeholders.h"
#include "model/gguf_writer.h"

namespace espalier {
namespace {

constexpr std::string_view kLayerPrefix = "blk..";  // without the layer's number
// head_count, head_count_kv and feed_forward_length: an int32 each.
constexpr uint64_t kArrayBytesPerLayer = 3 * sizeof(int32_t);

std::size_t BlockTensorName(std::string_view name) { return kLayerPrefix.size() + name.size(); }

// That every layer of the plan has both halves.
bool Complete(const Plan& plan) {
  bool waits = false;  // an attention block, for its FFN block
  for (int b = 0; b < plan.n_block(); ++b) {
    if (plan.kept({b})) {
      if (BlockId{b}.is_attention() == waits) {
        return false;
      }
      waits = !waits;
    }
  }
  return !waits;
}

uint64_t Digits(int number) { return number < 10 ? 1 : 1 + Digits(number / 10); }

}  // namespace

void ExportBytes::Part::Add(std::size_t name_bytes, int n_dims, uint64_t bytes) {
  data += RoundUp(bytes, kGgufAlignment);
  // Length and text of the name, number of dimensions, extents, type, offset (ggml's docs/gguf.md).
  infos += 8 + name_bytes + 4 + 8 * static_cast<uint64_t>(n_dims) + 4 + 8;
  ++n_tensors;
}

// Of one plan.
struct ExportBytes::Total {
  uint64_t data = 0;
  uint64_t infos = 0;
  int n_layer = 0;
  bool complete = true;

  void AddGlobals(const Part& part) {
    data += part.data;
    infos += part.infos;
  }
  // To the layer that was begun last.
  void Add(const Part& part) {
    data += part.data;
    infos += part.infos + part.n_tensors * Digits(n_layer - 1);
  }
};

Result<ExportBytes> ExportBytes::Create(const std::shared_ptr<const Model>& model, const ExportOptions& options) {
  ExportBytes bytes;
  const Architecture& architecture = model->architecture();
  const auto n_embd = static_cast<uint64_t>(model->hparams().n_embd);
  for (const TensorSpec& spec : architecture.globals) {
    if (const TensorInfo* tensor = model->globals().get(spec.role)) {
      bytes.globals_.Add(std::string_view(spec.name).size(), tensor->n_dims, tensor->bytes);
    }
  }
  const auto by_layer = TargetByLayer(architecture);
  const bool fused = by_layer && by_layer->fused_attention;
  bytes.has_means_ = options.means != nullptr;
  bytes.means_differ_ = bytes.has_means_ && !HasOutputBiases(architecture);
  for (int b = 0; b < model->n_block(); ++b) {
    bytes.AddBlock(*model, {b}, fused);
  }
  const auto add_placeholder = [](const std::vector<PlaceholderTensor>& tensors, Part* part) {
    for (const PlaceholderTensor& tensor : tensors) {
      part->Add(BlockTensorName(tensor.name), tensor.n_dims(), tensor.bytes());
    }
  };
  add_placeholder(AttentionPlaceholder(model->hparams(), fused), &bytes.attention_placeholder_);
  add_placeholder(FfnPlaceholder(model->hparams()), &bytes.ffn_placeholder_);
  bytes.attention_placeholder_bias_.Add(BlockTensorName(kAttentionOutputBiasName), 1, n_embd * sizeof(float));
  bytes.attention_everywhere_ = fused;
  ESPALIER_RETURN_IF_ERROR(bytes.MeasureMetadata(model, options));
  return bytes;
}

void ExportBytes::AddBlock(const Model& model, BlockId block, bool fused) {
  const bool attends = block.is_attention();
  const TensorGroup& tensors = model.block(block);
  Part part;
  Part part_by_layer;
  uint64_t fused_bytes = 0;
  for (const TensorSpec& spec : attends ? model.architecture().attention : model.architecture().ffn) {
    const TensorInfo* tensor = tensors.get(spec.role);
    if (tensor == nullptr) {
      continue;
    }
    part.Add(BlockTensorName(spec.name), tensor->n_dims, tensor->bytes);
    if (fused &&
        (spec.role == TensorRole::kQuery || spec.role == TensorRole::kKey || spec.role == TensorRole::kValue)) {
      fused_bytes += tensor->bytes;
    } else {
      part_by_layer.Add(BlockTensorName(spec.name), tensor->n_dims, tensor->bytes);
    }
  }
  if (fused_bytes > 0) {
    part_by_layer.Add(BlockTensorName(kFusedAttentionName), 2, fused_bytes);
  }
  Part bias;
  const TensorRole output_bias = attends ? TensorRole::kAttentionOutputBias : TensorRole::kFfnDownBias;
  if (has_means_ && tensors.get(output_bias) == nullptr) {
    bias.Add(BlockTensorName(attends ? kAttentionOutputBiasName : kFfnDownBiasName), 1,
             static_cast<uint64_t>(model.hparams().n_embd) * sizeof(float));
  }
  blocks_.push_back(part);
  blocks_by_layer_.push_back(part_by_layer);
  biases_.push_back(bias);
}

// What is left of two files that are known, their padding included.
Status ExportBytes::MeasureMetadata(const std::shared_ptr<const Model>& model, const ExportOptions& options) {
  const auto left_of = [](const GgufExport& file, const Total& total) {
    return file.file_bytes() - total.data - total.infos;
  };
  const Plan dense = Plan::Dense(model->n_layer());
  ESPALIER_ASSIGN_OR_RETURN(const GgufExport whole, GgufExport::Prepare(model, dense, options));
  metadata_ = left_of(whole, TotalOf(dense));
  // Without attention blocks, since some models' cannot be written in such a file.
  Plan broken = Plan::Nothing(model->n_layer());
  broken.Restore({1});
  const auto by_layer = GgufExport::Prepare(model, broken, options);
  if (!by_layer.ok()) {
    metadata_per_layer_ = metadata_;
    return by_layer.status().code() == ErrorCode::kUnsupported ? Status::Ok() : by_layer.status();
  }
  const Total total = TotalOf(broken);
  metadata_per_layer_ = left_of(*by_layer, total) - kArrayBytesPerLayer * static_cast<uint64_t>(total.n_layer);
  return Status::Ok();
}

ExportBytes::Total ExportBytes::TotalOf(const Plan& plan) const {
  ESPALIER_CHECK(plan.n_block() == static_cast<int>(blocks_.size()));
  const std::vector<Part>& blocks = Complete(plan) ? blocks_ : blocks_by_layer_;
  Total total;
  total.AddGlobals(globals_);
  total.complete = !(means_differ_ && !plan.dense());
  bool attends = false;  // the layer that was begun last has an attention block
  bool waits = false;    // for an FFN block
  int last_kept = -1;
  bool means_behind = false;  // of blocks dropped since last_kept
  const auto end_layer = [&] {
    if (waits) {
      total.Add(ffn_placeholder_);
      total.complete = false;
    }
    waits = false;
  };
  const auto begin_layer = [&](bool with_attention) {
    ++total.n_layer;
    attends = with_attention;
    waits = true;
    if (!attends) {
      total.complete = false;
      if (total.n_layer == 1 || attention_everywhere_) {
        total.Add(attention_placeholder_);
      }
    }
  };
  for (int b = 0; b < plan.n_block(); ++b) {
    if (!plan.kept({b})) {
      if (has_means_ && !means_behind && last_kept >= 0) {
        total.Add(biases_[static_cast<size_t>(last_kept)]);
      }
      means_behind = true;
      continue;
    }
    const bool attention = BlockId{b}.is_attention();
    const bool first_means = has_means_ && last_kept < 0 && means_behind;
    if (first_means && attention) {
      // They have a layer of their own, of placeholders.
      begin_layer(false);
      total.Add(attention_placeholder_bias_);
      end_layer();
    }
    if (attention || !waits) {
      end_layer();
      begin_layer(attention);
    }
    if (first_means && !attention) {
      total.Add(attention_placeholder_bias_);
    }
    total.Add(blocks[static_cast<size_t>(b)]);
    waits = waits && attention;
    last_kept = b;
    means_behind = false;
  }
  end_layer();
  return total;
}

uint64_t ExportBytes::operator()(const Plan& plan) const {
  const Total total = TotalOf(plan);
  const uint64_t metadata =
      total.complete ? metadata_ : metadata_per_layer_ + kArrayBytesPerLayer * static_cast<uint64_t>(total.n_layer);
  return RoundUp(metadata + total.infos, kGgufAlignment) + total.data;
}

}  // namespace espalier
