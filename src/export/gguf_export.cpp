#include "export/gguf_export.h"

#include <fmt/format.h>
#include <ggml.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>

#include "base/bytes.h"
#include "base/check.h"
#include "base/file.h"
#include "export/placeholders.h"
#include "model/quote.h"

namespace espalier {
namespace {

std::vector<std::byte> BytesOf(std::span<const float> values) {
  const auto bytes = std::as_bytes(values);
  return {bytes.begin(), bytes.end()};
}

}  // namespace

// One object for one file: metadata first, then tensors in the order of execution.
class GgufExport::Builder {
 public:
  Builder(std::shared_ptr<const Model> model, const Plan& plan, const ExportOptions& options)
      : model_(std::move(model)), plan_(plan), options_(options), h_(model_->hparams()) {}

  Result<GgufExport> Build() {
    if (!plan_.whole_blocks_only()) {
      return Unsupported(
          fmt::format("plan {}: expected whole blocks, which any llama.cpp runs; found blocks kept in "
                      "part",
                      Quote(plan_.ToText())));
    }
    export_.model_ = model_;
    export_.layers_ = PairBlocks(plan_);
    if (export_.layers_.empty()) {
      return Unsupported(
          fmt::format("plan {}: expected at least one block that is kept, found none", Quote(plan_.ToText())));
    }
    FoldMeans();
    const auto& layers = export_.layers_;
    const bool means = !added_.empty() || !added_first_.empty();
    ESPALIER_ASSIGN_OR_RETURN(export_.target_, ChooseTarget(*model_, plan_, layers, means));
    ESPALIER_RETURN_IF_ERROR(CopyMetadata());
    SetShape();
    for (const auto& [key, value] : options_.provenance) {
      header_.SetText("espalier." + key, value);
    }
    AddGlobals();
    for (size_t il = 0; il < layers.size(); ++il) {
      ESPALIER_RETURN_IF_ERROR(AddLayer(static_cast<int>(il), layers[il]));
    }
    export_.header_ = header_.Bytes();
    export_.file_bytes_ = export_.header_.size();
    for (const TensorSource& tensor : export_.tensors_) {
      export_.file_bytes_ += RoundUp(tensor.bytes(), kGgufAlignment);
    }
    return std::move(export_);
  }

 private:
  using Mean = std::vector<float>;

  const ExportTarget& target() const { return export_.target_; }

  // Means of dropped blocks go to the kept block before them. Where there is none, the file begins with a layer whose
  // placeholders carry them.
  void FoldMeans() {
    if (options_.means == nullptr) {
      return;
    }
    std::optional<BlockId> before;
    for (int b = 0; b < plan_.n_block(); ++b) {
      if (plan_.kept({b})) {
        before = BlockId{b};
        continue;
      }
      Mean& sum = before ? added_[before->index] : added_first_;
      sum.resize(static_cast<size_t>(h_.n_embd), 0.0F);
      const std::span<const float> mean = options_.means->of({b});
      std::transform(sum.begin(), sum.end(), mean.begin(), sum.begin(), std::plus<>());
    }
    if (!added_first_.empty() && export_.layers_.front().attention) {
      export_.layers_.insert(export_.layers_.begin(), PrunedLayer());
    }
  }

  // Everything but what names the architecture, shapes that are written anew, the file's alignment, and how the source
  // was split into files: stock readers would look for the others.
  Status CopyMetadata() {
    const std::string old_prefix = std::string(model_->architecture().name) + ".";
    const std::string new_prefix = target().architecture + ".";
    for (const GgufEntry& entry : model_->gguf().entries()) {
      if (entry.key == "general.architecture" || entry.key == "general.alignment" || entry.key.starts_with("split.")) {
        continue;
      }
      std::string key = entry.key;
      if (key.starts_with(old_prefix)) {
        ESPALIER_RETURN_IF_ERROR(RefuseByLayer(entry));
        key = new_prefix + key.substr(old_prefix.size());
      }
      ESPALIER_RETURN_IF_ERROR(header_.Set(key, entry));
    }
    header_.SetText("general.architecture", target().architecture);
    return Status::Ok();
  }

  // An array with a value for every layer, whose blocks would part.
  Status RefuseByLayer(const GgufEntry& entry) const {
    const auto* array = std::get_if<GgufArray>(&entry.value);
    if (array == nullptr || array->size() != static_cast<uint64_t>(h_.n_layer)) {
      return Status::Ok();
    }
    return Unsupported(
        fmt::format("{}: key {}: expected one value for all layers, found an array of one for each; "
                    "such a model can be served under a plan, not exported",
                    model_->path(), Quote(entry.key)));
  }

  void SetShape() {
    const std::string prefix = target().architecture + ".";
    const auto& layers = export_.layers_;
    header_.SetUint32(prefix + "block_count", static_cast<uint32_t>(layers.size()));
    if (!target().by_layer) {
      return;
    }
    std::vector<int32_t> heads;
    std::vector<int32_t> kv_heads;
    std::vector<int32_t> widths;
    for (size_t il = 0; il < layers.size(); ++il) {
      const bool attends = layers[il].attention.has_value();
      const bool placeholder = HasAttentionPlaceholder(static_cast<int>(il));
      heads.push_back(attends ? h_.n_head : placeholder ? 1 : 0);
      kv_heads.push_back(attends ? h_.n_head_kv : placeholder ? 1 : 0);
      widths.push_back(layers[il].ffn ? h_.n_ff : static_cast<int32_t>(kPlaceholderWidth));
    }
    header_.SetInt32s(prefix + "attention.head_count", heads);
    header_.SetInt32s(prefix + "attention.head_count_kv", kv_heads);
    header_.SetInt32s(prefix + "feed_forward_length", widths);
    // Their defaults are shares of the first layer's heads.
    const auto head_dim = static_cast<uint32_t>(h_.head_dim);
    header_.SetUint32(prefix + "attention.key_length", head_dim);
    header_.SetUint32(prefix + "attention.value_length", head_dim);
    header_.SetUint32(prefix + "rope.dimension_count", static_cast<uint32_t>(h_.rope.n_rot));
  }

  // llama.cpp needs attention in the first layer, or in all.
  bool HasAttentionPlaceholder(int il) const {
    return !export_.layers_[static_cast<size_t>(il)].attention && (il == 0 || target().fused_attention);
  }

  void Add(const std::string& name, const TensorInfo& like, TensorSource source) {
    header_.AddTensor(name, like.type, std::span(like.ne).first(static_cast<size_t>(like.n_dims)));
    export_.tensors_.push_back(std::move(source));
  }
  void Vector(const std::string& name, std::span<const float> values) {
    header_.AddTensor(name, GGML_TYPE_F32, std::vector{static_cast<int64_t>(values.size())});
    export_.tensors_.push_back(TensorSource::Made(BytesOf(values)));
  }
  void Placeholders(const std::string& prefix, const std::vector<PlaceholderTensor>& tensors) {
    for (const PlaceholderTensor& tensor : tensors) {
      if (tensor.norm()) {
        Vector(prefix + tensor.name, Mean(static_cast<size_t>(tensor.in), 1.0F));
      } else {
        header_.AddTensor(prefix + tensor.name, GGML_TYPE_F16, std::vector{tensor.in, tensor.out});
        export_.tensors_.push_back(TensorSource::Made(std::vector<std::byte>(tensor.bytes())));
      }
    }
  }

  void AddGlobals() {
    for (const TensorSpec& spec : model_->architecture().globals) {
      if (const TensorInfo* tensor = model_->globals().get(spec.role)) {
        Add(spec.name, *tensor, TensorSource::Copied(*tensor));
      }
    }
  }

  void AddFused(const std::string& prefix, const TensorGroup& attention) {
    const std::vector<const TensorInfo*> parts = {attention.get(TensorRole::kQuery), attention.get(TensorRole::kKey),
                                                  attention.get(TensorRole::kValue)};
    TensorInfo fused = *parts.front();
    fused.ne[1] = parts[0]->ne[1] + parts[1]->ne[1] + parts[2]->ne[1];
    Add(prefix + kFusedAttentionName, fused, TensorSource::Joined(parts));
  }

  // One that is in the source, but for the output's bias.
  void AddTensor(const std::string& prefix, const TensorSpec& spec, const TensorGroup& block) {
    const TensorInfo& tensor = *block.get(spec.role);
    switch (spec.role) {
      case TensorRole::kQuery:
        if (target().fused_attention) {
          return AddFused(prefix, block);
        }
        break;
      case TensorRole::kKey:
      case TensorRole::kValue:
        if (target().fused_attention) {
          return;
        }
        break;
      default:
        break;
    }
    const bool turns = spec.role == TensorRole::kQuery || spec.role == TensorRole::kKey ||
                       spec.role == TensorRole::kQueryBias || spec.role == TensorRole::kKeyBias;
    Add(prefix + spec.name, tensor,
        turns && target().norm_rope ? TensorSource::ForNormRope(tensor, h_.head_dim) : TensorSource::Copied(tensor));
  }

  // What is added behind the block joins its output's bias.
  Status AddOutputBias(const std::string& name, const TensorInfo* own, BlockId block) {
    const auto added = added_.find(block.index);
    if (added == added_.end()) {
      if (own != nullptr) {
        Add(name, *own, TensorSource::Copied(*own));
      }
      return Status::Ok();
    }
    Mean bias(static_cast<size_t>(h_.n_embd), 0.0F);
    if (own != nullptr) {  // F32, as all vectors of a model
      ESPALIER_RETURN_IF_ERROR(model_->gguf().source().ReadAt(own->offset, std::as_writable_bytes(std::span(bias))));
    }
    std::transform(bias.begin(), bias.end(), added->second.begin(), bias.begin(), std::plus<>());
    Vector(name, bias);
    return Status::Ok();
  }

  Status AddBlock(const std::string& prefix, BlockId block) {
    const Architecture& architecture = model_->architecture();
    const TensorGroup& tensors = model_->block(block);
    const bool attends = block.is_attention();
    const TensorRole output_bias = attends ? TensorRole::kAttentionOutputBias : TensorRole::kFfnDownBias;
    for (const TensorSpec& spec : attends ? architecture.attention : architecture.ffn) {
      if (tensors.get(spec.role) != nullptr && spec.role != output_bias) {
        AddTensor(prefix, spec, tensors);
      }
    }
    return AddOutputBias(prefix + (attends ? kAttentionOutputBiasName : kFfnDownBiasName), tensors.get(output_bias),
                         block);
  }

  Status AddLayer(int il, const PrunedLayer& layer) {
    const std::string prefix = fmt::format("blk.{}.", il);
    if (layer.attention) {
      ESPALIER_RETURN_IF_ERROR(AddBlock(prefix, *layer.attention));
    } else if (HasAttentionPlaceholder(il)) {
      Placeholders(prefix, AttentionPlaceholder(h_, target().fused_attention));
      if (il == 0 && !added_first_.empty()) {
        Vector(prefix + kAttentionOutputBiasName, added_first_);
      }
    }
    if (layer.ffn) {
      return AddBlock(prefix, *layer.ffn);
    }
    Placeholders(prefix, FfnPlaceholder(h_));
    return Status::Ok();
  }

  const std::shared_ptr<const Model> model_;
  const Plan& plan_;
  const ExportOptions& options_;
  const HyperParameters& h_;
  GgufExport export_;
  GgufHeader header_;
  std::map<int, Mean> added_;  // by index of the kept block before the dropped ones
  Mean added_first_;           // before any kept block
};

Result<GgufExport> GgufExport::Prepare(std::shared_ptr<const Model> model, const Plan& plan,
                                       const ExportOptions& options) {
  ESPALIER_CHECK(plan.n_layer() == model->n_layer());
  return Builder(std::move(model), plan, options).Build();
}

Status GgufExport::WriteTo(const std::string& path, const std::function<void(uint64_t, uint64_t)>& progress,
                           const std::atomic<bool>* stop) const {
  for (const std::string& own : model_->gguf().paths()) {
    std::error_code error;
    if (std::filesystem::equivalent(path, own, error)) {
      return InvalidArgument(fmt::format("{}: expected another file than the model's own", Quote(path)));
    }
  }
  ESPALIER_ASSIGN_OR_RETURN(const auto writer, AtomicFileWriter::Create(path));
  ESPALIER_RETURN_IF_ERROR(writer->Append(header_));
  const auto take = [&](std::span<const std::byte> piece) {
    if (stop != nullptr && *stop) {
      return Aborted(Quote(path) + ": writing was stopped");
    }
    const Status written = writer->Append(piece);
    if (written.ok() && progress) {
      progress(writer->size(), file_bytes_);
    }
    return written;
  };
  for (const TensorSource& tensor : tensors_) {
    ESPALIER_RETURN_IF_ERROR(tensor.Read(model_->gguf().source(), take));
    ESPALIER_RETURN_IF_ERROR(PadTensor(*writer));
  }
  ESPALIER_CHECK(writer->size() == file_bytes_);
  return writer->Commit();
}

}  // namespace espalier
