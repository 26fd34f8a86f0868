#include "model/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "model/file_type.h"
#include "model/quote.h"
#include "model/vocabulary.h"

namespace espalier {
namespace {

std::string ShapeText(std::span<const int64_t> ne) { return fmt::format("[{}]", fmt::join(ne, ", ")); }

// Maps the tensors of a file to roles, and keeps count of those that found a place.
class TensorMap {
 public:
  TensorMap(const GgufFile& file, const HyperParameters& hparams) : file_(file), hparams_(hparams) {}

  Result<TensorGroup> Group(std::span<const TensorSpec> specs, const std::string& prefix) {
    TensorGroup group;
    for (const TensorSpec& spec : specs) {
      const std::string name = prefix + spec.name;
      const TensorInfo* tensor = file_.FindTensor(name);
      if (tensor == nullptr) {
        if (spec.required) {
          return Corrupt(fmt::format("{}: tensor {}: expected in the file, found none", file_.path(), Quote(name)));
        }
        continue;
      }
      ESPALIER_RETURN_IF_ERROR(CheckShape(*tensor, spec));
      ESPALIER_RETURN_IF_ERROR(CheckType(*tensor));
      group.by_role[static_cast<size_t>(spec.role)] = tensor;
      group.file_bytes += tensor->bytes;
      placed_.insert(tensor);
    }
    return group;
  }

  // A tensor without a place would be left out of the computation in silence.
  Status RefuseUnplaced() const {
    for (const TensorInfo& tensor : file_.tensors()) {
      if (!placed_.contains(&tensor)) {
        return Unsupported(
            fmt::format("{}: tensor {}: expected only tensors that the architecture knows, found one "
                        "without a place",
                        file_.path(), Quote(tensor.name)));
      }
    }
    return Status::Ok();
  }

 private:
  Status CheckShape(const TensorInfo& tensor, const TensorSpec& spec) const {
    const std::array<int64_t, 4> expected = TensorShape(spec, hparams_);
    if (tensor.ne != expected) {
      return Corrupt(fmt::format("{}: tensor {}: expected shape {}, found {}", file_.path(), Quote(tensor.name),
                                 ShapeText(std::span(expected).first(std::string_view(spec.shape).size())),
                                 ShapeText(std::span(tensor.ne).first(static_cast<size_t>(tensor.n_dims)))));
    }
    return Status::Ok();
  }

  // Vectors (norms, biases, rope factors) enter element-wise operations, which ggml has for F32 only; matrices may
  // have any type that ggml can turn into floats.
  Status CheckType(const TensorInfo& tensor) const {
    const bool matrix = tensor.ne[1] > 1 || tensor.n_dims > 1;
    const bool known =
        tensor.type == GGML_TYPE_F32 || (matrix && ggml_get_type_traits(tensor.type)->to_float != nullptr);
    if (!known) {
      return Unsupported(fmt::format("{}: tensor {}: expected {}, found {}", file_.path(), Quote(tensor.name),
                                     matrix ? "a floating-point or quantised type" : "type f32",
                                     ggml_type_name(tensor.type)));
    }
    return Status::Ok();
  }

  const GgufFile& file_;
  const HyperParameters& hparams_;
  std::set<const TensorInfo*> placed_;
};

}  // namespace

Result<std::shared_ptr<const Model>> Model::Open(const std::string& path) {
  ESPALIER_ASSIGN_OR_RETURN(auto gguf, GgufFile::Open(path));
  return FromGguf(std::move(gguf));
}

Result<std::shared_ptr<const Model>> Model::FromGguf(std::shared_ptr<const GgufFile> gguf) {
  std::shared_ptr<Model> model(new Model);
  model->gguf_ = std::move(gguf);
  const GgufFile& file = *model->gguf_;
  ESPALIER_ASSIGN_OR_RETURN(const std::string name, file.String("general.architecture"));
  const auto architecture = FindArchitecture(name);
  if (!architecture.ok()) {
    return Unsupported(fmt::format("{}: {}", file.path(), architecture.status().message()));
  }
  model->architecture_ = *architecture;
  ESPALIER_ASSIGN_OR_RETURN(model->hparams_, ReadHyperParameters(file, *model->architecture_));
  TensorMap map(file, model->hparams_);
  ESPALIER_ASSIGN_OR_RETURN(model->globals_, map.Group(model->architecture_->globals, ""));
  for (int il = 0; il < model->n_layer(); ++il) {
    const std::string prefix = fmt::format("blk.{}.", il);
    ESPALIER_ASSIGN_OR_RETURN(auto attention, map.Group(model->architecture_->attention, prefix));
    ESPALIER_ASSIGN_OR_RETURN(auto ffn, map.Group(model->architecture_->ffn, prefix));
    model->blocks_.push_back(attention);
    model->blocks_.push_back(ffn);
  }
  ESPALIER_RETURN_IF_ERROR(map.RefuseUnplaced());
  ESPALIER_RETURN_IF_ERROR(CheckVocabulary(file));
  return std::shared_ptr<const Model>(std::move(model));
}

std::string Model::display_name() const {
  const auto name = gguf_->FindString("general.name");
  if (name.ok() && name->has_value() && !(*name)->empty()) {
    return Printable(**name);
  }
  const size_t slash = path().rfind('/');
  return Printable(slash == std::string::npos ? path() : path().substr(slash + 1));
}

std::string Model::quantization() const {
  const auto file_type = gguf_->FindInteger("general.file_type", 0, 1023);
  if (file_type.ok() && file_type->has_value()) {
    if (const FileType* type = FindFileType(**file_type); type != nullptr) {
      return type->name;
    }
  }
  std::map<ggml_type, int> count;
  for (const TensorInfo& tensor : gguf_->tensors()) {
    ++count[tensor.type];
  }
  const auto commonest =
      std::max_element(count.begin(), count.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  std::string name = ggml_type_name(commonest->first);
  std::transform(name.begin(), name.end(), name.begin(), [](char c) { return static_cast<char>(std::toupper(c)); });
  return name;
}

}  // namespace espalier
