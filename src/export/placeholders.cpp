#include "export/placeholders.h"

namespace espalier {

std::vector<PlaceholderTensor> AttentionPlaceholder(const HyperParameters& h, bool fused) {
  if (fused) {
    return {{"attn_norm.weight", h.n_embd},
            {kFusedAttentionName, h.n_embd, 3 * h.head_dim},
            {"attn_q_norm.weight", h.head_dim},
            {"attn_k_norm.weight", h.head_dim},
            {"attn_output.weight", h.head_dim, h.n_embd}};
  }
  return {{"attn_norm.weight", h.n_embd},
          {"attn_q.weight", h.n_embd, h.head_dim},
          {"attn_k.weight", h.n_embd, h.head_dim},
          {"attn_v.weight", h.n_embd, h.head_dim},
          {"attn_output.weight", h.head_dim, h.n_embd}};
}

std::vector<PlaceholderTensor> FfnPlaceholder(const HyperParameters& h) {
  return {{"ffn_norm.weight", h.n_embd},
          {"ffn_gate.weight", h.n_embd, kPlaceholderWidth},
          {"ffn_up.weight", h.n_embd, kPlaceholderWidth},
          {"ffn_down.weight", kPlaceholderWidth, h.n_embd}};
}

}  // namespace espalier
