#include "model/file_type.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "model/quote.h"

namespace espalier {
namespace {

constexpr FileType kFileTypes[] = {
    {"F32", 0, GGML_TYPE_F32},
    {"F16", 1, GGML_TYPE_F16},
    {"BF16", 32, GGML_TYPE_BF16},
    {"Q8_0", 7, GGML_TYPE_Q8_0},
    {"Q6_K", 18, GGML_TYPE_Q6_K},
    {"Q5_K_M", 17, GGML_TYPE_Q5_K},
    {"Q5_K_S", 16, GGML_TYPE_Q5_K},
    {"Q5_1", 9, GGML_TYPE_Q5_1},
    {"Q5_0", 8, GGML_TYPE_Q5_0},
    {"Q4_K_M", 15, GGML_TYPE_Q4_K},
    {"Q4_K_S", 14, GGML_TYPE_Q4_K},
    {"Q4_1", 3, GGML_TYPE_Q4_1},
    {"Q4_0", 2, GGML_TYPE_Q4_0},
    {"Q3_K_L", 13, GGML_TYPE_Q3_K},
    {"Q3_K_M", 12, GGML_TYPE_Q3_K},
    {"Q3_K_S", 11, GGML_TYPE_Q3_K},
    {"Q2_K", 10, GGML_TYPE_Q2_K},
    {"IQ2_XXS", 19, GGML_TYPE_IQ2_XXS, false},
    {"IQ2_XS", 20, GGML_TYPE_IQ2_XS, false},
    {"Q2_K_S", 21, GGML_TYPE_Q2_K, false},
    {"IQ3_XS", 22, GGML_TYPE_IQ3_S, false},
    {"IQ3_XXS", 23, GGML_TYPE_IQ3_XXS, false},
    {"IQ1_S", 24, GGML_TYPE_IQ1_S, false},
    {"IQ4_NL", 25, GGML_TYPE_IQ4_NL, false},
    {"IQ3_S", 26, GGML_TYPE_IQ3_S, false},
    {"IQ3_M", 27, GGML_TYPE_IQ3_S, false},
    {"IQ2_S", 28, GGML_TYPE_IQ2_XS, false},
    {"IQ2_M", 29, GGML_TYPE_IQ2_S, false},
    {"IQ4_XS", 30, GGML_TYPE_IQ4_XS, false},
    {"IQ1_M", 31, GGML_TYPE_IQ1_M, false},
    {"TQ1_0", 36, GGML_TYPE_TQ1_0, false},
    {"TQ2_0", 37, GGML_TYPE_TQ2_0, false},
    {"MXFP4_MOE", 38, GGML_TYPE_MXFP4, false},
    {"NVFP4", 39, GGML_TYPE_NVFP4, false},
    {"Q1_0", 40, GGML_TYPE_Q1_0, false},
    {"Q2_0", 41, GGML_TYPE_Q2_0, false},
};

bool SameLetters(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    return std::toupper(static_cast<unsigned char>(x)) == std::toupper(static_cast<unsigned char>(y));
  });
}

// The first and last eighth of the layers and every third between: llama-quantize's use_more_bits.
bool WantsMoreBits(int il, int n_layer) {
  return il < n_layer / 8 || il >= 7 * n_layer / 8 || (il - n_layer / 8) % 3 == 2;
}

ggml_type ValueType(std::string_view type, ggml_type base, const HyperParameters& h, int il) {
  if (type == "Q2_K") {
    return h.n_head / h.n_head_kv >= 4 ? GGML_TYPE_Q4_K : GGML_TYPE_Q3_K;
  }
  if (type == "Q3_K_M") {
    return il < 2 ? GGML_TYPE_Q5_K : GGML_TYPE_Q4_K;
  }
  if (type == "Q3_K_L" || (type == "Q4_K_S" && il < 4)) {
    return GGML_TYPE_Q5_K;
  }
  return (type == "Q4_K_M" || type == "Q5_K_M") && WantsMoreBits(il, h.n_layer) ? GGML_TYPE_Q6_K : base;
}

ggml_type DownType(std::string_view type, ggml_type base, const HyperParameters& h, int il) {
  if (type == "Q2_K") {
    return GGML_TYPE_Q3_K;
  }
  if (type == "Q3_K_M") {
    return il < h.n_layer / 16 ? GGML_TYPE_Q5_K : GGML_TYPE_Q4_K;
  }
  if (type == "Q3_K_L" || (type == "Q4_K_S" && il < h.n_layer / 8)) {
    return GGML_TYPE_Q5_K;
  }
  return (type == "Q4_K_M" || type == "Q5_K_M") && WantsMoreBits(il, h.n_layer) ? GGML_TYPE_Q6_K : base;
}

ggml_type AttentionOutputType(std::string_view type, ggml_type base) {
  return type == "Q2_K" ? GGML_TYPE_Q3_K : type == "Q3_K_M" ? GGML_TYPE_Q4_K : type == "Q3_K_L" ? GGML_TYPE_Q5_K : base;
}

ggml_type MixedType(const FileType& type, const HyperParameters& h, TensorRole role, int il, int64_t row) {
  switch (role) {
    case TensorRole::kTokenEmbedding:
      if (!h.tied_output) {
        return type.base;
      }
      [[fallthrough]];
    case TensorRole::kOutput:
      return row % ggml_blck_size(type.base) != 0 || type.base == GGML_TYPE_Q8_0 ? GGML_TYPE_Q8_0 : GGML_TYPE_Q6_K;
    case TensorRole::kValue:
      return ValueType(type.name, type.base, h, il);
    case TensorRole::kFfnDown:
      return DownType(type.name, type.base, h, il);
    case TensorRole::kAttentionOutput:
      return AttentionOutputType(type.name, type.base);
    default:
      return type.base;
  }
}

ggml_type SmallBlockType(ggml_type type) {
  switch (type) {
    case GGML_TYPE_Q2_K:
    case GGML_TYPE_Q3_K:
      return GGML_TYPE_Q4_0;
    case GGML_TYPE_Q4_K:
      return GGML_TYPE_Q5_0;
    case GGML_TYPE_Q5_K:
      return GGML_TYPE_Q5_1;
    case GGML_TYPE_Q6_K:
      return GGML_TYPE_Q8_0;
    default:
      return GGML_TYPE_F16;
  }
}

}  // namespace

Result<const FileType*> ParseFileType(std::string_view name) {
  std::string writable;
  for (const FileType& type : kFileTypes) {
    if (!type.writable) {
      continue;
    }
    if (SameLetters(type.name, name)) {
      return &type;
    }
    writable += writable.empty() ? type.name : std::string(", ") + type.name;
  }
  return InvalidArgument(fmt::format("type {}: expected one of {}", Quote(name), writable));
}

const FileType* FindFileType(int64_t number) {
  const auto* end = std::end(kFileTypes);
  const auto* found = std::find_if(std::begin(kFileTypes), end, [&](const FileType& t) { return t.number == number; });
  return found == end ? nullptr : found;
}

ggml_type MatrixType(const FileType& type, const HyperParameters& hparams, TensorRole role, int il, int64_t row) {
  ESPALIER_CHECK(type.writable);
  if (!ggml_is_quantized(type.base)) {
    return type.base;
  }
  ggml_type chosen = MixedType(type, hparams, role, il, row);
  if (row % ggml_blck_size(chosen) != 0) {
    chosen = SmallBlockType(chosen);
  }
  return row % ggml_blck_size(chosen) == 0 ? chosen : GGML_TYPE_F16;
}

}  // namespace espalier
