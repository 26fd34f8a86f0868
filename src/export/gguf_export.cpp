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

constexpr char kPerLayer[] = "deci";

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
    const bool complete = std::all_of(layers.begin(), layers.end(), [](const PrunedLayer& l) { return l.complete(); });
    export_.architecture_ = complete ? model_->architecture().name : kPerLayer;
    ESPALIER_RETURN_IF_ERROR(CopyMetadata());
    SetShape(complete);
    for (const auto& [key, value] : options_.provenance) {
      header_.SetText("espalier." + key, value);
    }
    AddGlobals();
    for (size_t il = 0; il < layers.size(); ++il) {
      ESPALIER_RETURN_IF_ERROR(AddLayer(static_cast<int>(il), layers[il]));
    }
    export_.header_ = header_.Bytes();
    export_.file_bytes_ = export_.header_.size();
    for (const Tensor& tensor : export_.tensors_) {
      export_.file_bytes_ += RoundUp(tensor.bytes(), kGgufAlignment);
    }
    return std::move(export_);
  }

 private:
  using Mean = std::vector<float>;

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

  // Everything but what names the architecture, shapes that are written anew, and the file's alignment.
  Status CopyMetadata() {
    const std::string old_prefix = std::string(model_->architecture().name) + ".";
    const std::string new_prefix = export_.architecture_ + ".";
    for (const GgufEntry& entry : model_->gguf().entries()) {
      if (entry.key == "general.architecture" || entry.key == "general.alignment") {
        continue;
      }
      std::string key = entry.key;
      if (key.starts_with(old_prefix)) {
        ESPALIER_RETURN_IF_ERROR(RefuseByLayer(entry));
        key = new_prefix + key.substr(old_prefix.size());
      }
      ESPALIER_RETURN_IF_ERROR(header_.Set(key, entry));
    }
    header_.SetText("general.architecture", export_.architecture_);
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

  void SetShape(bool complete) {
    const std::string prefix = export_.architecture_ + ".";
    const auto& layers = export_.layers_;
    header_.SetUint32(prefix + "block_count", static_cast<uint32_t>(layers.size()));
    if (complete) {
      return;
    }
    std::vector<int32_t> heads;
    std::vector<int32_t> kv_heads;
    std::vector<int32_t> widths;
    for (size_t il = 0; il < layers.size(); ++il) {
      const bool attends = layers[il].attention.has_value();
      const bool placeholder = !attends && il == 0;
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

  void Copy(const std::string& name, const TensorInfo& source) {
    header_.AddTensor(name, source.type, std::span(source.ne).first(static_cast<size_t>(source.n_dims)));
    export_.tensors_.push_back({&source, {}});
  }
  void Vector(const std::string& name, std::span<const float> values) {
    header_.AddTensor(name, GGML_TYPE_F32, std::vector{static_cast<int64_t>(values.size())});
    export_.tensors_.push_back({nullptr, BytesOf(values)});
  }
  void Placeholders(const std::string& prefix, const std::vector<PlaceholderTensor>& tensors) {
    for (const PlaceholderTensor& tensor : tensors) {
      if (tensor.norm()) {
        Vector(prefix + tensor.name, Mean(static_cast<size_t>(tensor.in), 1.0F));
      } else {
        header_.AddTensor(prefix + tensor.name, GGML_TYPE_F16, std::vector{tensor.in, tensor.out});
        export_.tensors_.push_back({nullptr, std::vector<std::byte>(tensor.bytes())});
      }
    }
  }

  void AddGlobals() {
    for (const TensorSpec& spec : model_->architecture().globals) {
      if (const TensorInfo* tensor = model_->globals().get(spec.role)) {
        Copy(spec.name, *tensor);
      }
    }
  }

  // The block's tensors; what is added behind it joins its output's bias.
  Status AddBlock(const std::string& prefix, BlockId block, std::span<const TensorSpec> specs, TensorRole output_bias) {
    const auto added = added_.find(block.index);
    for (const TensorSpec& spec : specs) {
      const TensorInfo* tensor = model_->block(block).get(spec.role);
      if (spec.role == output_bias && added != added_.end()) {
        Mean bias(static_cast<size_t>(h_.n_embd), 0.0F);
        if (tensor != nullptr) {  // F32, as all vectors of a model
          ESPALIER_RETURN_IF_ERROR(
              model_->gguf().source().ReadAt(tensor->offset, std::as_writable_bytes(std::span(bias))));
        }
        std::transform(bias.begin(), bias.end(), added->second.begin(), bias.begin(), std::plus<>());
        Vector(prefix + spec.name, bias);
      } else if (tensor != nullptr) {
        Copy(prefix + spec.name, *tensor);
      }
    }
    return Status::Ok();
  }

  Status AddLayer(int il, const PrunedLayer& layer) {
    const std::string prefix = fmt::format("blk.{}.", il);
    const Architecture& architecture = model_->architecture();
    if (layer.attention) {
      ESPALIER_RETURN_IF_ERROR(
          AddBlock(prefix, *layer.attention, architecture.attention, TensorRole::kAttentionOutputBias));
    } else if (il == 0) {
      Placeholders(prefix, AttentionPlaceholder(h_));
      if (!added_first_.empty()) {
        Vector(prefix + kAttentionOutputBiasName, added_first_);
      }
    }
    if (layer.ffn) {
      ESPALIER_RETURN_IF_ERROR(AddBlock(prefix, *layer.ffn, architecture.ffn, TensorRole::kFfnDownBias));
    } else {
      Placeholders(prefix, FfnPlaceholder(h_));
    }
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
  std::error_code error;
  if (std::filesystem::equivalent(path, model_->path(), error)) {
    return InvalidArgument(fmt::format("{}: expected another file than the model's own", Quote(path)));
  }
  constexpr uint64_t kChunk = 4 * kMiB;
  ESPALIER_ASSIGN_OR_RETURN(const auto writer, AtomicFileWriter::Create(path));
  ESPALIER_RETURN_IF_ERROR(writer->Append(header_));
  std::vector<std::byte> chunk;
  for (const Tensor& tensor : tensors_) {
    if (tensor.source == nullptr) {
      ESPALIER_RETURN_IF_ERROR(writer->Append(tensor.made));
    }
    for (uint64_t done = 0; tensor.source != nullptr && done < tensor.bytes(); done += chunk.size()) {
      if (stop != nullptr && *stop) {
        return Aborted(Quote(path) + ": writing was stopped");
      }
      chunk.resize(std::min(kChunk, tensor.bytes() - done));
      ESPALIER_RETURN_IF_ERROR(model_->gguf().source().ReadAt(tensor.source->offset + done, chunk));
      ESPALIER_RETURN_IF_ERROR(writer->Append(chunk));
      if (progress) {
        progress(writer->size(), file_bytes_);
      }
    }
    ESPALIER_RETURN_IF_ERROR(PadTensor(*writer));
  }
  ESPALIER_CHECK(writer->size() == file_bytes_);
  return writer->Commit();
}

}  // namespace espalier
