#include "model/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "model/quote.h"
#include "model/vocabulary.h"

namespace espalier {
namespace {

int64_t Extent(char letter, const HyperParameters& h) {
  switch (letter) {
    case 'E': return h.n_embd;
    case 'F': return h.n_ff;
    case 'Q': return int64_t{h.n_head} * h.head_dim;
    case 'K': return int64_t{h.n_head_kv} * h.head_dim;
    case 'D': return h.head_dim;
    case 'V': return h.n_vocab;
    case 'R': return h.rope.n_rot / 2;
    default: break;
  }
  ESPALIER_CHECK(false);
}

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
        return Unsupported(fmt::format("{}: tensor {}: expected only tensors that the architecture knows, found one "
                                       "without a place", file_.path(), Quote(tensor.name)));
      }
    }
    return Status::Ok();
  }

 private:
  Status CheckShape(const TensorInfo& tensor, const TensorSpec& spec) const {
    std::array<int64_t, 4> expected = {1, 1, 1, 1};
    const std::string_view letters = spec.shape;
    for (size_t d = 0; d < letters.size(); ++d) {
      expected[d] = Extent(letters[d], hparams_);
    }
    if (tensor.ne != expected) {
      return Corrupt(fmt::format("{}: tensor {}: expected shape {}, found {}", file_.path(), Quote(tensor.name),
                                 ShapeText(std::span(expected).first(letters.size())),
                                 ShapeText(std::span(tensor.ne).first(static_cast<size_t>(tensor.n_dims)))));
    }
    return Status::Ok();
  }

  // Vectors (norms, biases, rope factors) enter element-wise operations, which ggml has for F32 only; matrices may
  // have any type that ggml can turn into floats.
  Status CheckType(const TensorInfo& tensor) const {
    const bool matrix = tensor.ne[1] > 1 || tensor.n_dims > 1;
    const bool known = tensor.type == GGML_TYPE_F32 ||
                       (matrix && ggml_get_type_traits(tensor.type)->to_float != nullptr);
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

// general.file_type, by the numbers of llama.h's llama_ftype.
const char* FileTypeName(int64_t file_type) {
  switch (file_type) {
    case 0: return "F32";
    case 1: return "F16";
    case 2: return "Q4_0";
    case 3: return "Q4_1";
    case 7: return "Q8_0";
    case 8: return "Q5_0";
    case 9: return "Q5_1";
    case 10: return "Q2_K";
    case 11: return "Q3_K_S";
    case 12: return "Q3_K_M";
    case 13: return "Q3_K_L";
    case 14: return "Q4_K_S";
    case 15: return "Q4_K_M";
    case 16: return "Q5_K_S";
    case 17: return "Q5_K_M";
    case 18: return "Q6_K";
    case 19: return "IQ2_XXS";
    case 20: return "IQ2_XS";
    case 21: return "Q2_K_S";
    case 22: return "IQ3_XS";
    case 23: return "IQ3_XXS";
    case 24: return "IQ1_S";
    case 25: return "IQ4_NL";
    case 26: return "IQ3_S";
    case 27: return "IQ3_M";
    case 28: return "IQ2_S";
    case 29: return "IQ2_M";
    case 30: return "IQ4_XS";
    case 31: return "IQ1_M";
    case 32: return "BF16";
    case 36: return "TQ1_0";
    case 37: return "TQ2_0";
    default: return nullptr;
  }
}

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
    if (const char* name = FileTypeName(**file_type); name != nullptr) {
      return name;
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
