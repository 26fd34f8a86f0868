// What an architecture is, as data: which tensors a block has, what shapes they must have, how rope turns. The graph
// (runtime/graph) is written once, over tensor roles; a new architecture is a new description, not a new graph.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"
#include "model/block.h"
#include "model/gguf_file.h"

namespace espalier {

// The part a tensor plays. Optional roles that a file lacks simply do not appear in the graph.
enum class TensorRole : uint8_t {
  // attention block
  kAttentionNorm,
  kQuery,
  kKey,
  kValue,
  kAttentionOutput,
  kQueryBias,
  kKeyBias,
  kValueBias,
  kAttentionOutputBias,
  kQueryNorm,
  kKeyNorm,
  // FFN block
  kFfnNorm,
  kFfnGate,
  kFfnUp,
  kFfnDown,
  kFfnGateBias,
  kFfnUpBias,
  kFfnDownBias,
  // outside all blocks, always resident
  kTokenEmbedding,
  kOutputNorm,
  kOutput,
  kRopeFrequencyFactors,
  kCount,
};
inline constexpr int kTensorRoleCount = static_cast<int>(TensorRole::kCount);

// How rope pairs the elements of a head: NORM pairs (2i, 2i+1), NEOX pairs (i, i + n_rot/2).
enum class RopeKind : uint8_t { kNorm, kNeox };

// Positions of rotary embedding, resolved from the metadata the way libllama does at its defaults.
struct RopeParameters {
  RopeKind kind = RopeKind::kNorm;
  int n_rot = 0;           // elements of a head that turn
  int n_ctx_original = 0;  // YaRN: context the model was first trained for
  float freq_base = 10000;
  float freq_scale = 1;  // 1 / linear scaling factor
  float ext_factor = 0;  // 1 with YaRN
  float attn_factor = 1;
  float beta_fast = 32;
  float beta_slow = 1;
};

struct HyperParameters {
  int n_layer = 0;
  int n_embd = 0;
  int n_head = 0;
  int n_head_kv = 0;
  int head_dim = 0;  // of keys and of values
  int n_ff = 0;
  int n_vocab = 0;
  int n_ctx_train = 0;
  float rms_epsilon = 0;
  float attention_scale = 0;  // factor on q*k, usually 1/sqrt(head_dim)
  RopeParameters rope;
  bool tied_output = false;  // no output.weight: the token embedding is the output head
};

// One tensor an architecture knows. Shapes are written with letters: E n_embd, F n_ff, Q n_head * head_dim,
// K n_head_kv * head_dim, D head_dim, V n_vocab, R n_rot / 2; "EF" is ne = {n_embd, n_ff}.
struct TensorSpec {
  TensorRole role;
  const char* name;  // after "blk.<il>." for block tensors; whole otherwise
  const char* shape;
  bool required;
};

// ne of a tensor in a model of these hyper-parameters; 1 beyond the letters.
std::array<int64_t, 4> TensorShape(const TensorSpec& spec, const HyperParameters& hparams);

struct Architecture {
  const char* name;  // general.architecture
  RopeKind rope;
  std::span<const TensorSpec> attention;
  std::span<const TensorSpec> ffn;
  std::span<const TensorSpec> globals;
};

// All there are.
std::span<const Architecture> Architectures();
std::string ArchitectureNames();  // "llama, qwen2"

// The description for general.architecture `name`; kUnsupported lists what there is.
Result<const Architecture*> FindArchitecture(std::string_view name);

// Reads and bounds the hyper-parameters of `file`. Refuses what the graph would silently get wrong: experts, sliding
// windows, ALiBi, per-layer head counts, scaling types other than none, linear and YaRN.
Result<HyperParameters> ReadHyperParameters(const GgufFile& file, const Architecture& architecture);

}  // namespace espalier
