#include "export/export_target.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "model/quote.h"

namespace espalier {
namespace {

constexpr char kDeci[] = "deci";
constexpr char kOpenElm[] = "openelm";

// What is alone in a layer.
std::string Found(const PrunedLayer& layer) {
  if (layer.attention) {
    return BlockName(*layer.attention) + " without an FFN block";
  }
  return layer.ffn ? BlockName(*layer.ffn) + " without an attention block" : "means before all blocks";
}

// Why layers that differ cannot be exact, and what the source would have to be.
struct Obstacle {
  std::string what;
  std::string_view remedy;
};

std::optional<Obstacle> ObstacleOfAttention(const TensorGroup& attention) {
  for (const TensorRole role : {TensorRole::kQueryBias, TensorRole::kKeyBias, TensorRole::kValueBias}) {
    if (const TensorInfo* bias = attention.get(role)) {
      return Obstacle{fmt::format("it has no biases ({})", Quote(bias->name)), ""};
    }
  }
  const TensorInfo& q = *attention.get(TensorRole::kQuery);
  const TensorInfo& k = *attention.get(TensorRole::kKey);
  const TensorInfo& v = *attention.get(TensorRole::kValue);
  if (q.type == k.type && q.type == v.type) {
    return std::nullopt;
  }
  return Obstacle{fmt::format("its q, k and v are one tensor of one type ({}, attn_k, attn_v: {}, {}, {})",
                              Quote(q.name), TensorTypeName(q), TensorTypeName(k), TensorTypeName(v)),
                  ", or take a file of one type, such as Q8_0 or F16"};
}

std::optional<Obstacle> ObstacleOfOpenElm(const Model& model, std::span<const PrunedLayer> layers) {
  if (!model.hparams().tied_output) {
    return Obstacle{"its output head is the token embedding (the model has 'output.weight')", ""};
  }
  if (model.hparams().rms_epsilon == 0) {  // the norms of a head of zeros would be 0 / 0
    return Obstacle{"its placeholders need a norm epsilon above 0", ""};
  }
  for (const PrunedLayer& layer : layers) {
    if (layer.attention) {
      if (auto obstacle = ObstacleOfAttention(model.block(*layer.attention))) {
        return obstacle;
      }
    }
  }
  return std::nullopt;
}

std::optional<Obstacle> ObstacleTo(const std::optional<ExportTarget>& target, const Model& model,
                                   std::span<const PrunedLayer> layers) {
  if (!target) {
    return Obstacle{"llama.cpp has no architecture like it whose layers may differ", ""};
  }
  auto obstacle = target->fused_attention ? ObstacleOfOpenElm(model, layers) : std::nullopt;
  if (obstacle) {
    obstacle->what = fmt::format("layers that differ would be of architecture {}, and {}", kOpenElm, obstacle->what);
  }
  return obstacle;
}

}  // namespace

std::optional<ExportTarget> TargetByLayer(const Architecture& source) {
  const std::string_view name = source.name;
  ExportTarget target;
  target.by_layer = true;
  if (name == "llama" || name == "qwen2") {
    target.architecture = kDeci;
    target.norm_rope = source.rope == RopeKind::kNeox;
    return target;
  }
  if (name == "qwen3") {
    target.architecture = kOpenElm;
    target.fused_attention = true;
    return target;
  }
  return std::nullopt;
}

std::string WhyCompleteLayersOnly(const Model& model) {
  const auto obstacle =
      ObstacleTo(TargetByLayer(model.architecture()), model, PairBlocks(Plan::Dense(model.n_layer())));
  return obstacle ? fmt::format("{}; drop whole layers{}", obstacle->what, obstacle->remedy) : "";
}

bool HasOutputBiases(const Architecture& source) {
  return std::any_of(source.attention.begin(), source.attention.end(),
                     [](const TensorSpec& spec) { return spec.role == TensorRole::kAttentionOutputBias; });
}

Result<ExportTarget> ChooseTarget(const Model& model, const Plan& plan, std::span<const PrunedLayer> layers,
                                  bool means) {
  const Architecture& source = model.architecture();
  const auto lone = std::find_if(layers.begin(), layers.end(), [](const PrunedLayer& l) { return !l.complete(); });
  const bool lacks_biases = means && !HasOutputBiases(source);
  if (lone == layers.end() && !lacks_biases) {
    ExportTarget own;
    own.architecture = source.name;
    own.reason = "every layer has both halves";
    return own;
  }
  std::optional<ExportTarget> target = TargetByLayer(source);
  if (lacks_biases && (!target || target->fused_attention)) {
    return Unsupported(
        fmt::format("plan {}: means of dropped blocks: expected biases of attn_output and ffn_down, which neither "
                    "architecture {} has in llama.cpp nor what it could be written as; take ablation zero",
                    Quote(plan.ToText()), source.name));
  }
  if (const auto obstacle = ObstacleTo(target, model, layers)) {
    return Unsupported(
        fmt::format("plan {}: expected both halves in every layer of this {} model, found {}: {}; drop whole layers{}",
                    Quote(plan.ToText()), source.name, Found(*lone), obstacle->what, obstacle->remedy));
  }
  target->reason = lone != layers.end() ? "layers differ (" + Found(*lone) + ")"
                                        : fmt::format("{} has no biases for the means of dropped blocks", source.name);
  if (target->norm_rope) {
    target->reason += "; rows of q and k are in the order of its rope";
  }
  if (target->fused_attention) {
    target->reason += "; q, k and v are one tensor there";
  }
  return std::move(*target);
}

}  // namespace espalier
