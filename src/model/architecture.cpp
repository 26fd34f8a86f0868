#include "model/architecture.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "model/quote.h"

namespace espalier {
namespace {

using enum TensorRole;

constexpr TensorSpec kLlamaAttention[] = {
    {kAttentionNorm, "attn_norm.weight", "E", true},
    {kQuery, "attn_q.weight", "EQ", true},
    {kKey, "attn_k.weight", "EK", true},
    {kValue, "attn_v.weight", "EK", true},
    {kAttentionOutput, "attn_output.weight", "QE", true},
    {kQueryBias, "attn_q.bias", "Q", false},
    {kKeyBias, "attn_k.bias", "K", false},
    {kValueBias, "attn_v.bias", "K", false},
    {kAttentionOutputBias, "attn_output.bias", "E", false},
};

constexpr TensorSpec kLlamaFfn[] = {
    {kFfnNorm, "ffn_norm.weight", "E", true},    {kFfnGate, "ffn_gate.weight", "EF", true},
    {kFfnUp, "ffn_up.weight", "EF", true},       {kFfnDown, "ffn_down.weight", "FE", true},
    {kFfnGateBias, "ffn_gate.bias", "F", false}, {kFfnUpBias, "ffn_up.bias", "F", false},
    {kFfnDownBias, "ffn_down.bias", "E", false},
};

constexpr TensorSpec kLlamaGlobals[] = {
    {kTokenEmbedding, "token_embd.weight", "EV", true},
    {kOutputNorm, "output_norm.weight", "E", true},
    {kOutput, "output.weight", "EV", false},
    {kRopeFrequencyFactors, "rope_freqs.weight", "R", false},
};

constexpr TensorSpec kQwen2Attention[] = {
    {kAttentionNorm, "attn_norm.weight", "E", true},
    {kQuery, "attn_q.weight", "EQ", true},
    {kKey, "attn_k.weight", "EK", true},
    {kValue, "attn_v.weight", "EK", true},
    {kAttentionOutput, "attn_output.weight", "QE", true},
    {kQueryBias, "attn_q.bias", "Q", false},
    {kKeyBias, "attn_k.bias", "K", false},
    {kValueBias, "attn_v.bias", "K", false},
};

constexpr TensorSpec kQwen3Attention[] = {
    {kAttentionNorm, "attn_norm.weight", "E", true},
    {kQuery, "attn_q.weight", "EQ", true},
    {kKey, "attn_k.weight", "EK", true},
    {kValue, "attn_v.weight", "EK", true},
    {kAttentionOutput, "attn_output.weight", "QE", true},
    {kQueryNorm, "attn_q_norm.weight", "D", true},
    {kKeyNorm, "attn_k_norm.weight", "D", true},
    {kQueryBias, "attn_q.bias", "Q", false},
    {kKeyBias, "attn_k.bias", "K", false},
    {kValueBias, "attn_v.bias", "K", false},
};

constexpr TensorSpec kQwenFfn[] = {
    {kFfnNorm, "ffn_norm.weight", "E", true},
    {kFfnGate, "ffn_gate.weight", "EF", true},
    {kFfnUp, "ffn_up.weight", "EF", true},
    {kFfnDown, "ffn_down.weight", "FE", true},
};

constexpr TensorSpec kQwenGlobals[] = {
    {kTokenEmbedding, "token_embd.weight", "EV", true},
    {kOutputNorm, "output_norm.weight", "E", true},
    {kOutput, "output.weight", "EV", false},
};

constexpr Architecture kArchitectures[] = {
    // Llama 1 to 3, Mistral, TinyLlama, SmolLM2.
    {"llama", RopeKind::kNorm, kLlamaAttention, kLlamaFfn, kLlamaGlobals},
    // Qwen1.5, Qwen2, Qwen2.5.
    {"qwen2", RopeKind::kNeox, kQwen2Attention, kQwenFfn, kQwenGlobals},
    // The dense models of Qwen3.
    {"qwen3", RopeKind::kNeox, kQwen3Attention, kQwenFfn, kQwenGlobals},
};

int64_t Extent(char letter, const HyperParameters& h) {
  switch (letter) {
    case 'E':
      return h.n_embd;
    case 'F':
      return h.n_ff;
    case 'Q':
      return int64_t{h.n_head} * h.head_dim;
    case 'K':
      return int64_t{h.n_head_kv} * h.head_dim;
    case 'D':
      return h.head_dim;
    case 'V':
      return h.n_vocab;
    case 'R':
      return h.rope.n_rot / 2;
    default:
      break;
  }
  ESPALIER_CHECK(false);
}

// Far above any real model, and small enough that products of three stay within 63 bits. The number of layers is
// libllama's own limit.
constexpr int64_t kMaxLayers = 512;
constexpr int64_t kMaxWidth = 1 << 20;
constexpr int64_t kMaxContext = 1 << 30;
constexpr int64_t kMaxVocabulary = 1 << 24;

// Looks keys up under the architecture's prefix.
class Keys {
 public:
  Keys(const GgufFile& file, const Architecture& architecture) : file_(file), prefix_(architecture.name) {}

  std::string Name(std::string_view key) const { return fmt::format("{}.{}", prefix_, key); }

  Status Required(std::string_view key, int64_t lowest, int64_t highest, int& out) const {
    ESPALIER_RETURN_IF_ERROR(RefuseArray(key));
    ESPALIER_ASSIGN_OR_RETURN(const int64_t value, file_.Integer(Name(key), lowest, highest));
    out = static_cast<int>(value);
    return Status::Ok();
  }
  Status Optional(std::string_view key, int64_t lowest, int64_t highest, int& out) const {
    ESPALIER_RETURN_IF_ERROR(RefuseArray(key));
    ESPALIER_ASSIGN_OR_RETURN(const auto value, file_.FindInteger(Name(key), lowest, highest));
    out = static_cast<int>(value.value_or(out));
    return Status::Ok();
  }
  Result<float> Number(std::string_view key, float absent) const {
    ESPALIER_ASSIGN_OR_RETURN(const auto value, file_.FindNumber(Name(key)));
    return value ? static_cast<float>(*value) : absent;
  }

  Status Refuse(std::string_view key, std::string_view expected, std::string_view found) const {
    return Unsupported(
        fmt::format("{}: key {}: expected {}, found {}", file_.path(), Quote(Name(key)), expected, found));
  }

 private:
  // A model whose layers differ says so with an array where others have one number.
  Status RefuseArray(std::string_view key) const {
    const GgufEntry* entry = file_.FindEntry(Name(key));
    if (entry != nullptr && entry->type == GgufType::kArray) {
      return Refuse(key, "one number for all layers", "an array (layers of different shapes)");
    }
    return Status::Ok();
  }

  const GgufFile& file_;
  std::string_view prefix_;
};

// What would change the result without changing any tensor's shape.
Status RefuseWhatTheGraphLacks(const GgufFile& file, const Keys& keys, int n_ctx_train) {
  int experts = 0;
  ESPALIER_RETURN_IF_ERROR(keys.Optional("expert_count", 0, kMaxWidth, experts));
  if (experts > 0) {
    return keys.Refuse("expert_count", "0 (a dense model)", fmt::to_string(experts));
  }
  int window = 0;
  ESPALIER_RETURN_IF_ERROR(keys.Optional("attention.sliding_window", 0, std::numeric_limits<int>::max(), window));
  if (window > 0 && window < n_ctx_train) {
    return keys.Refuse("attention.sliding_window", "none, or one as wide as the context", fmt::to_string(window));
  }
  ESPALIER_ASSIGN_OR_RETURN(const float alibi, keys.Number("attention.max_alibi_bias", 0));
  if (alibi != 0) {
    return keys.Refuse("attention.max_alibi_bias", "0", fmt::to_string(alibi));
  }
  ESPALIER_ASSIGN_OR_RETURN(const auto causal, file.FindBool(keys.Name("attention.causal")));
  if (!causal.value_or(true)) {
    return keys.Refuse("attention.causal", "true", "false");
  }
  return Status::Ok();
}

Status ReadHeads(const GgufFile& file, const Keys& keys, HyperParameters& h) {
  ESPALIER_RETURN_IF_ERROR(keys.Required("attention.head_count", 1, kMaxWidth, h.n_head));
  h.n_head_kv = h.n_head;
  ESPALIER_RETURN_IF_ERROR(keys.Optional("attention.head_count_kv", 1, kMaxWidth, h.n_head_kv));
  if (h.n_head % h.n_head_kv != 0) {
    return Corrupt(fmt::format("{}: key {}: expected a divisor of the {} heads, found {}", file.path(),
                               Quote(keys.Name("attention.head_count_kv")), h.n_head, h.n_head_kv));
  }
  h.head_dim = h.n_embd / h.n_head;
  ESPALIER_RETURN_IF_ERROR(keys.Optional("attention.key_length", 1, kMaxWidth, h.head_dim));
  int value_length = h.n_embd / h.n_head;
  ESPALIER_RETURN_IF_ERROR(keys.Optional("attention.value_length", 1, kMaxWidth, value_length));
  if (value_length != h.head_dim) {
    return keys.Refuse("attention.value_length", fmt::format("{}, the length of keys", h.head_dim),
                       fmt::to_string(value_length));
  }
  if (h.head_dim < 2 || h.head_dim % 2 != 0) {
    return Corrupt(fmt::format("{}: head size: expected an even number ({} elements over {} heads), found {}",
                               file.path(), h.n_embd, h.n_head, h.head_dim));
  }
  return Status::Ok();
}

// As libllama resolves it at default context parameters (llama-model.cpp load_hparams, llama-context.cpp constructor),
// in the same float arithmetic: the factors enter every logit.
Status ReadRope(const GgufFile& file, const Keys& keys, HyperParameters& h) {
  RopeParameters& rope = h.rope;
  rope.n_rot = h.head_dim;
  ESPALIER_RETURN_IF_ERROR(keys.Optional("rope.dimension_count", 1, kMaxWidth, rope.n_rot));
  if (rope.n_rot != h.head_dim) {
    return keys.Refuse("rope.dimension_count", fmt::format("{}, the head size", h.head_dim),
                       fmt::to_string(rope.n_rot));
  }
  ESPALIER_ASSIGN_OR_RETURN(rope.freq_base, keys.Number("rope.freq_base", 10000.0f));
  if (!(rope.freq_base > 0 && std::isfinite(rope.freq_base))) {
    return keys.Refuse("rope.freq_base", "a positive number", fmt::to_string(rope.freq_base));
  }
  rope.n_ctx_original = h.n_ctx_train;
  ESPALIER_RETURN_IF_ERROR(keys.Optional("rope.scaling.original_context_length", 0, kMaxContext, rope.n_ctx_original));
  if (rope.n_ctx_original == 0) {
    rope.n_ctx_original = h.n_ctx_train;
  }
  ESPALIER_ASSIGN_OR_RETURN(const auto type_found, file.FindString(keys.Name("rope.scaling.type")));
  const std::string type = type_found.value_or("linear");
  if (type != "none" && type != "linear" && type != "yarn") {
    return keys.Refuse("rope.scaling.type", "none, linear or yarn", Quote(type));
  }
  ESPALIER_ASSIGN_OR_RETURN(float factor, keys.Number("rope.scale_linear", 0));
  ESPALIER_ASSIGN_OR_RETURN(factor, keys.Number("rope.scaling.factor", factor));
  if (factor != 0 && !(factor >= 1e-3f && factor <= 1e6f)) {
    return keys.Refuse("rope.scaling.factor", "0 (none), or 0.001 to 1000000", fmt::to_string(factor));
  }
  rope.freq_scale = type == "none" || factor == 0 ? 1.0f : 1.0f / factor;
  if (type == "yarn") {
    rope.ext_factor = 1;
    const float scale = 1.0f / rope.freq_scale;
    // ggml_rope multiplies by 1 + 0.1 ln(scale) itself when ext_factor is set; libllama cancels that.
    rope.attn_factor = scale <= 1.0f ? 1.0f : 0.1f * 1.0f * std::log(scale) + 1.0f;
    rope.attn_factor *= 1.0f / (1.0f + 0.1f * std::log(scale));
  }
  ESPALIER_ASSIGN_OR_RETURN(const float extra, keys.Number("rope.scaling.attn_factor", 1.0f));
  rope.attn_factor *= extra;
  return Status::Ok();
}

Result<int> ReadVocabularySize(const GgufFile& file) {
  const auto bad = [&](const std::string& found) {
    return Corrupt(fmt::format("{}: key 'tokenizer.ggml.tokens': expected an array of 1 to {} strings, found {}",
                               file.path(), kMaxVocabulary, found));
  };
  const GgufEntry* tokens = file.FindEntry("tokenizer.ggml.tokens");
  if (tokens == nullptr) {
    return bad("none");
  }
  const auto* array = std::get_if<GgufArray>(&tokens->value);
  if (array == nullptr) {
    return bad("a single value");
  }
  const bool strings = array->element_type == GgufType::kString;
  if (!strings || array->size() < 1 || array->size() > static_cast<uint64_t>(kMaxVocabulary)) {
    return bad(fmt::format("an array of {} elements of type {}", array->size(), GgufTypeName(array->element_type)));
  }
  return static_cast<int>(array->size());
}

}  // namespace

std::array<int64_t, 4> TensorShape(const TensorSpec& spec, const HyperParameters& hparams) {
  std::array<int64_t, 4> ne = {1, 1, 1, 1};
  const std::string_view letters = spec.shape;
  for (size_t d = 0; d < letters.size(); ++d) {
    ne[d] = Extent(letters[d], hparams);
  }
  return ne;
}

std::span<const Architecture> Architectures() { return kArchitectures; }

std::string ArchitectureNames() {
  std::string names;
  for (const Architecture& architecture : kArchitectures) {
    names += names.empty() ? architecture.name : std::string(", ") + architecture.name;
  }
  return names;
}

Result<const Architecture*> FindArchitecture(std::string_view name) {
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.name == name) {
      return &architecture;
    }
  }
  return Unsupported(fmt::format("architecture: expected one of {}, found {}", ArchitectureNames(), Quote(name)));
}

Result<HyperParameters> ReadHyperParameters(const GgufFile& file, const Architecture& architecture) {
  const Keys keys(file, architecture);
  HyperParameters h;
  ESPALIER_RETURN_IF_ERROR(keys.Required("block_count", 1, kMaxLayers, h.n_layer));
  ESPALIER_RETURN_IF_ERROR(keys.Required("embedding_length", 1, kMaxWidth, h.n_embd));
  ESPALIER_RETURN_IF_ERROR(keys.Required("feed_forward_length", 1, kMaxWidth, h.n_ff));
  ESPALIER_RETURN_IF_ERROR(keys.Required("context_length", 1, kMaxContext, h.n_ctx_train));
  ESPALIER_RETURN_IF_ERROR(ReadHeads(file, keys, h));
  ESPALIER_RETURN_IF_ERROR(RefuseWhatTheGraphLacks(file, keys, h.n_ctx_train));
  h.rope.kind = architecture.rope;
  ESPALIER_RETURN_IF_ERROR(ReadRope(file, keys, h));
  ESPALIER_ASSIGN_OR_RETURN(const double epsilon, file.Number(keys.Name("attention.layer_norm_rms_epsilon")));
  h.rms_epsilon = static_cast<float>(epsilon);
  if (!(h.rms_epsilon >= 0 && h.rms_epsilon < 1)) {
    return keys.Refuse("attention.layer_norm_rms_epsilon", "0 to 1", fmt::to_string(h.rms_epsilon));
  }
  h.attention_scale = 1.0f / std::sqrt(static_cast<float>(h.head_dim));
  ESPALIER_ASSIGN_OR_RETURN(h.n_vocab, ReadVocabularySize(file));
  h.tied_output = file.FindTensor("output.weight") == nullptr;
  return h;
}

}  // namespace espalier
