#include "runtime/graph.h"

#include <algorithm>

#include "base/check.h"

namespace espalier {
namespace {

// Nodes, views and inputs: with biases, norms of heads, rotations and means, an attention block over a row subset has
// 43, an FFN block 14, and every block may have a subset of its own with five inputs. A packed group adds eight.
constexpr size_t kNodesPerLayer = 80;
constexpr size_t kNodesPerGroup = 8;  // views, attention, a mask, and a copy
constexpr size_t kNodesBesides = 64;

size_t MaxNodes(const HyperParameters& hparams, GraphBuilder::Purpose purpose, int max_groups) {
  const bool head_only = purpose == GraphBuilder::Purpose::kHead;
  const size_t per_layer = kNodesPerLayer + kNodesPerGroup * static_cast<size_t>(max_groups - 1);
  return kNodesBesides + (head_only ? 0 : per_layer * static_cast<size_t>(hparams.n_layer));
}

// How far tokens see one another in a sub-batch.
struct Reach {
  int last_attention = -1;  // the last attention block that runs
  bool uniform = true;      // every block that runs, runs on all rows
};

Reach ReachOf(const BatchShape& shape) {
  Reach reach;
  for (int b = 0; b < static_cast<int>(shape.block_rows.size()); ++b) {
    const int rows = shape.block_rows[static_cast<size_t>(b)];
    reach.uniform = reach.uniform && (rows == kAllRows || rows == kNoRows);
    if (BlockId{b}.is_attention() && rows != kNoRows) {
      reach.last_attention = b;
    }
  }
  return reach;
}

}  // namespace

int MaxAttentionGroups(int max_sequences) { return std::clamp(max_sequences, 1, 16); }

struct GraphBuilder::Scope {
  const ModelTensors& tensors;
  const KvCache& kv;
};

GraphBuilder::GraphBuilder(const HyperParameters& hparams, Purpose purpose, int max_groups)
    : hparams_(hparams),
      purpose_(purpose),
      max_nodes_(MaxNodes(hparams, purpose, max_groups)),
      arena_(ggml_tensor_overhead() * max_nodes_ + ggml_graph_overhead_custom(max_nodes_, false)) {}

void GraphBuilder::Reset() {
  context_.reset();
  context_.reset(ggml_init({arena_.size(), arena_.data(), /*no_alloc=*/true}));
  graph_ = ggml_new_graph_custom(context_.get(), max_nodes_, false);
  if (purpose_ == Purpose::kMeasuring) {
    // Works in place on a float in the arena, so it may really be executed.
    ggml_set_no_alloc(context_.get(), false);
    ggml_tensor* one = ggml_new_tensor_1d(context_.get(), GGML_TYPE_F32, 1);
    *static_cast<float*>(one->data) = 1;
    ggml_set_no_alloc(context_.get(), true);
    ggml_build_forward_expand(graph_, ggml_scale_inplace(context_.get(), one, 1.0F));
  }
}

ggml_tensor* GraphBuilder::Input(ggml_type type, int64_t ne0, int64_t ne1) {
  ggml_tensor* tensor = ggml_new_tensor_2d(context_.get(), type, ne0, ne1);
  ggml_set_input(tensor);
  return tensor;
}

ggml_tensor* GraphBuilder::Output(ggml_tensor* tensor) {
  ggml_set_output(tensor);
  ggml_build_forward_expand(graph_, tensor);
  return tensor;
}

RowInputs GraphBuilder::NewRowInputs(int64_t n, const std::vector<AttentionGroup>& groups, bool subset) {
  RowInputs rows;
  rows.positions = Input(GGML_TYPE_I32, n);
  rows.cells = Input(GGML_TYPE_I64, n);
  rows.groups = groups;
  for (const AttentionGroup& group : groups) {
    const int64_t n_rows = group.packed ? group.n_rows * heads_per_key() : group.n_rows;
    ggml_tensor* mask = ggml_new_tensor_4d(context_.get(), GGML_TYPE_F16, group.n_kv, n_rows, 1, group.n_streams);
    ggml_set_input(mask);
    rows.masks.push_back(mask);
  }
  if (subset) {
    rows.gather = Input(GGML_TYPE_I32, n);
    rows.scatter = Input(GGML_TYPE_I64, n);
  }
  return rows;
}

ggml_tensor* GraphBuilder::Norm(ggml_tensor* x, ggml_tensor* weight) {
  return ggml_mul(context_.get(), ggml_rms_norm(context_.get(), x, hparams_.rms_epsilon), weight);
}

ggml_tensor* GraphBuilder::Project(ggml_tensor* weight, ggml_tensor* bias, ggml_tensor* x) {
  ggml_tensor* y = ggml_mul_mat(context_.get(), weight, x);
  return bias != nullptr ? ggml_add(context_.get(), y, bias) : y;
}

ggml_tensor* GraphBuilder::Rotate(ggml_tensor* x, ggml_tensor* rotation) {
  if (rotation == nullptr) {
    return x;
  }
  ggml_context* const c = context_.get();
  const int64_t n = rotation->ne[0];
  ggml_tensor* groups = ggml_is_contiguous(x) ? ggml_reshape_2d(c, x, n, ggml_nelements(x) / n)
                                              : ggml_cont_2d(c, x, n, ggml_nelements(x) / n);
  ggml_tensor* turned = ggml_mul_mat(c, rotation, groups);
  ggml_mul_mat_set_hint(turned, GGML_HINT_SRC0_IS_HADAMARD);
  return ggml_reshape_4d(c, turned, x->ne[0], x->ne[1], x->ne[2], x->ne[3]);
}

ggml_tensor* GraphBuilder::Rope(ggml_tensor* x, ggml_tensor* positions, ggml_tensor* factors) {
  const RopeParameters& rope = hparams_.rope;
  const int mode = rope.kind == RopeKind::kNeox ? GGML_ROPE_TYPE_NEOX : GGML_ROPE_TYPE_NORMAL;
  return ggml_rope_ext(context_.get(), x, positions, factors, rope.n_rot, mode, rope.n_ctx_original, rope.freq_base,
                       rope.freq_scale, rope.ext_factor, rope.attn_factor, rope.beta_fast, rope.beta_slow);
}

ggml_tensor* GraphBuilder::AttendToCells(const Scope& scope, int il, ggml_tensor* rows, const AttentionGroup& group,
                                         ggml_tensor* mask) {
  ggml_context* const c = context_.get();
  const auto cells = [&](ggml_tensor* planes) {
    const size_t slot = static_cast<size_t>(scope.kv.stride()) * planes->nb[1];
    return ggml_view_4d(c, planes, hparams_.head_dim, group.n_kv, hparams_.n_head_kv, group.n_streams, planes->nb[1],
                        planes->nb[2], slot, static_cast<size_t>(group.first_slot) * slot);
  };
  ggml_tensor* out = ggml_flash_attn_ext(c, rows, cells(scope.kv.key(il)), cells(scope.kv.value(il)), mask,
                                         hparams_.attention_scale, 0.0F, 0.0F);
  ggml_flash_attn_ext_set_prec(out, GGML_PREC_F32);
  return out;
}

ggml_tensor* GraphBuilder::Attend(const Scope& scope, int il, ggml_tensor* q, const AttentionGroup& group,
                                  ggml_tensor* mask) {
  if (group.packed) {
    return AttendPacked(scope, il, q, group, mask);
  }
  ggml_context* const c = context_.get();
  ggml_tensor* rows =
      ggml_view_4d(c, q, hparams_.head_dim, hparams_.n_head, group.n_rows, group.n_streams, q->nb[1], q->nb[2],
                   static_cast<size_t>(group.n_rows) * q->nb[2], static_cast<size_t>(group.first_row) * q->nb[2]);
  ggml_tensor* out = AttendToCells(scope, il, ggml_permute(c, rows, 0, 2, 1, 3), group, mask);
  return ggml_reshape_2d(c, out, hparams_.head_dim * hparams_.n_head, group.n_rows * group.n_streams);
}

ggml_tensor* GraphBuilder::AttendPacked(const Scope& scope, int il, ggml_tensor* q, const AttentionGroup& group,
                                        ggml_tensor* mask) {
  ggml_context* const c = context_.get();
  const int64_t head_dim = hparams_.head_dim;
  const int64_t n_head_kv = hparams_.n_head_kv;
  const int64_t shared = heads_per_key();
  // [head_dim, shared, n_head_kv, tokens] as it is -> [head_dim, shared * tokens, n_head_kv].
  ggml_tensor* rows =
      ggml_view_4d(c, q, head_dim, shared, n_head_kv, group.n_rows, q->nb[1], static_cast<size_t>(shared) * q->nb[1],
                   q->nb[2], static_cast<size_t>(group.first_row) * q->nb[2]);
  rows = ggml_cont_3d(c, ggml_permute(c, rows, 0, 1, 3, 2), head_dim, shared * group.n_rows, n_head_kv);
  ggml_tensor* out = AttendToCells(scope, il, rows, group, mask);
  // [head_dim, n_head_kv, shared * tokens] -> heads in their order, by token.
  out = ggml_reshape_4d(c, out, head_dim, n_head_kv, shared, group.n_rows);
  return ggml_cont_2d(c, ggml_permute(c, out, 0, 2, 1, 3), head_dim * hparams_.n_head, group.n_rows);
}

ggml_tensor* GraphBuilder::AttendAll(const Scope& scope, int il, ggml_tensor* q, const RowInputs& rows) {
  ggml_context* const c = context_.get();
  const int64_t width = hparams_.head_dim * hparams_.n_head;
  if (rows.groups.size() == 1) {
    return Attend(scope, il, q, rows.groups.front(), rows.masks.front());
  }
  // Nobody reads a group's queries after its attention: its result takes their place. So groups need no more memory
  // than one piece does, however many there are.
  ggml_tensor* out = ggml_reshape_2d(c, q, width, q->ne[2]);
  for (size_t g = 0; g < rows.groups.size(); ++g) {
    ggml_tensor* part = Attend(scope, il, q, rows.groups[g], rows.masks[g]);
    out = ggml_set_2d_inplace(c, out, part, out->nb[1], static_cast<size_t>(rows.groups[g].first_row) * out->nb[1]);
    ggml_build_forward_expand(graph_, out);  // in this order, since the queries of the next one are in the same place
  }
  return out;
}

ggml_tensor* GraphBuilder::AttentionBlock(const Scope& scope, int il, ggml_tensor* x, const RowInputs& rows,
                                          bool keys_only) {
  ggml_context* const c = context_.get();
  const auto tensor = [&](TensorRole role) { return scope.tensors.get(BlockId::Attention(il), role); };
  ggml_tensor* const factors = scope.tensors.global(TensorRole::kRopeFrequencyFactors);
  const int64_t head_dim = hparams_.head_dim;
  const int64_t n_head_kv = hparams_.n_head_kv;
  const int64_t n = x->ne[1];

  ggml_tensor* cur = Norm(x, tensor(TensorRole::kAttentionNorm));                             // [n_embd, n]
  ggml_tensor* q = Project(tensor(TensorRole::kQuery), tensor(TensorRole::kQueryBias), cur);  // [n_head*head_dim, n]
  ggml_tensor* k = Project(tensor(TensorRole::kKey), tensor(TensorRole::kKeyBias), cur);      // [n_head_kv*head_dim, n]
  ggml_tensor* v = Project(tensor(TensorRole::kValue), tensor(TensorRole::kValueBias), cur);  // likewise
  q = ggml_reshape_3d(c, q, head_dim, hparams_.n_head, n);
  k = ggml_reshape_3d(c, k, head_dim, n_head_kv, n);
  v = ggml_reshape_3d(c, v, head_dim, n_head_kv, n);
  if (ggml_tensor* norm = tensor(TensorRole::kQueryNorm)) {
    q = Norm(q, norm);
  }
  if (ggml_tensor* norm = tensor(TensorRole::kKeyNorm)) {
    k = Norm(k, norm);
  }
  q = Rotate(Rope(q, rows.positions, factors), scope.kv.key_rotation());
  k = Rotate(Rope(k, rows.positions, factors), scope.kv.key_rotation());
  v = Rotate(v, scope.kv.value_rotation());

  // K/V rows into their cells, head by head: planes are [head_dim, cells, n_head_kv].
  ggml_tensor* const key_planes = scope.kv.key(il);
  ggml_tensor* const value_planes = scope.kv.value(il);
  ggml_build_forward_expand(graph_, ggml_set_rows(c, key_planes, ggml_permute(c, k, 0, 2, 1, 3), rows.cells));
  ggml_build_forward_expand(graph_, ggml_set_rows(c, value_planes, ggml_permute(c, v, 0, 2, 1, 3), rows.cells));
  if (keys_only) {
    return nullptr;
  }
  ggml_tensor* out = Rotate(AttendAll(scope, il, q, rows), scope.kv.value_rotation());
  return Project(tensor(TensorRole::kAttentionOutput), tensor(TensorRole::kAttentionOutputBias), out);
}

ggml_tensor* GraphBuilder::FfnBlock(const Scope& scope, int il, ggml_tensor* x) {
  const auto tensor = [&](TensorRole role) { return scope.tensors.get(BlockId::Ffn(il), role); };
  ggml_tensor* cur = Norm(x, tensor(TensorRole::kFfnNorm));
  ggml_tensor* up = Project(tensor(TensorRole::kFfnUp), tensor(TensorRole::kFfnUpBias), cur);  // [n_ff, n]
  ggml_tensor* gate = Project(tensor(TensorRole::kFfnGate), tensor(TensorRole::kFfnGateBias), cur);
  ggml_tensor* hidden = ggml_swiglu_split(context_.get(), gate, up);
  return Project(tensor(TensorRole::kFfnDown), tensor(TensorRole::kFfnDownBias), hidden);
}

ggml_tensor* GraphBuilder::Block(const Scope& scope, BlockId block, ggml_tensor* in, const RowInputs& rows,
                                 bool keys_only) {
  ggml_tensor* delta = block.is_attention() ? AttentionBlock(scope, block.layer(), in, rows, keys_only)
                                            : FfnBlock(scope, block.layer(), in);
  return delta != nullptr ? ggml_add(context_.get(), delta, in) : nullptr;
}

ggml_tensor* GraphBuilder::Skip(const Scope& scope, BlockId block, ggml_tensor* x) {
  ggml_tensor* const means = scope.tensors.means;
  if (means == nullptr) {
    return x;
  }
  const size_t offset = static_cast<size_t>(block.index) * means->nb[1];
  return ggml_add(context_.get(), x, ggml_view_1d(context_.get(), means, means->ne[0], offset));
}

ggml_tensor* GraphBuilder::Head(const ModelTensors& tensors, ggml_tensor* hidden) {
  return Output(ggml_mul_mat(context_.get(), tensors.head(), hidden));
}

Graph GraphBuilder::NewBatchInputs(const BatchShape& shape) {
  Graph result;
  result.graph = graph_;
  result.tokens = Input(GGML_TYPE_I32, shape.n_tokens);
  for (size_t s = 0; s < shape.subset_sizes.size(); ++s) {
    result.rows.push_back(NewRowInputs(shape.subset_sizes[s], shape.groups[s], s != 0));
  }
  if (shape.gathers_output && shape.n_output > 0) {
    result.output_rows = Input(GGML_TYPE_I32, shape.n_output);
  }
  return result;
}

Graph GraphBuilder::Build(const BatchShape& shape, const ModelTensors& tensors, const KvCache& kv) {
  Reset();
  ggml_tensor* spare = shape.spare_floats > 0 ? Input(GGML_TYPE_F32, shape.spare_floats) : nullptr;
  Graph result = BuildBody(shape, tensors, kv);
  if (spare != nullptr) {
    Output(ggml_sum(context_.get(), spare));
  }
  return result;
}

Graph GraphBuilder::BuildBody(const BatchShape& shape, const ModelTensors& tensors, const KvCache& kv) {
  ggml_context* const c = context_.get();
  const Scope scope{tensors, kv};
  const Reach reach = ReachOf(shape);
  Graph result = NewBatchInputs(shape);
  ggml_tensor* x = ggml_get_rows(c, tensors.global(TensorRole::kTokenEmbedding), result.tokens);  // [n_embd, n_tokens]
  // After the last attention every block is local to its token, so only rows that come out go on.
  bool trimmed = result.output_rows == nullptr;
  const auto trim = [&] {
    if (!trimmed) {
      x = ggml_get_rows(c, x, result.output_rows);
      trimmed = true;
    }
  };
  if (reach.last_attention < 0 && reach.uniform) {
    trim();
  }
  for (int b = 0; b < static_cast<int>(shape.block_rows.size()); ++b) {
    const BlockId block{b};
    const int subset = shape.block_rows[static_cast<size_t>(b)];
    if (shape.n_output == 0 && b > reach.last_attention) {
      break;
    }
    if (subset == kNoRows) {
      x = Skip(scope, block, x);
      continue;
    }
    const RowInputs& rows = result.rows[static_cast<size_t>(subset)];
    ggml_tensor* in = subset == kAllRows ? x : ggml_get_rows(c, x, rows.gather);
    const bool keys_only = shape.n_output == 0 && b == reach.last_attention;
    ggml_tensor* out = Block(scope, block, in, rows, keys_only);
    if (out == nullptr) {
      return result;
    }
    x = subset == kAllRows ? out : ggml_set_rows(c, Skip(scope, block, x), out, rows.scatter);
    if (b == reach.last_attention && reach.uniform) {
      trim();
    }
  }
  if (shape.n_output == 0) {  // no attention at all: nothing to compute
    return result;
  }
  trim();
  ggml_tensor* hidden = Norm(x, tensors.global(TensorRole::kOutputNorm));
  if (shape.with_head) {
    result.logits = Head(tensors, hidden);
  } else {
    result.hidden = Output(hidden);
  }
  return result;
}

Graph GraphBuilder::BuildHead(int64_t n_rows, const ModelTensors& tensors, bool normed) {
  Reset();
  Graph result;
  result.graph = graph_;
  result.hidden = Input(GGML_TYPE_F32, hparams_.n_embd, n_rows);
  result.logits = Head(tensors, normed ? result.hidden : Norm(result.hidden, tensors.global(TensorRole::kOutputNorm)));
  return result;
}

Graph GraphBuilder::BuildNorm(int64_t n_rows, const ModelTensors& tensors) {
  Reset();
  Graph result;
  result.graph = graph_;
  result.hidden = Input(GGML_TYPE_F32, hparams_.n_embd, n_rows);
  result.normed = Output(Norm(result.hidden, tensors.global(TensorRole::kOutputNorm)));
  return result;
}

Graph GraphBuilder::BuildEmbedding(int64_t n_tokens, const ModelTensors& tensors) {
  Reset();
  Graph result;
  result.graph = graph_;
  result.tokens = Input(GGML_TYPE_I32, n_tokens);
  result.hidden = Output(ggml_get_rows(context_.get(), tensors.global(TensorRole::kTokenEmbedding), result.tokens));
  return result;
}

Graph GraphBuilder::BuildBlocks(std::span<const BlockId> blocks, const WindowInputs& window,
                                const ModelTensors& tensors, const KvCache& kv) {
  Reset();
  const Scope scope{tensors, kv};
  ggml_tensor* x = window.hidden;
  for (const BlockId block : blocks) {
    x = Block(scope, block, x, window.rows, /*keys_only=*/false);
  }
  Graph result;
  result.graph = graph_;
  result.hidden = Output(x);
  return result;
}

}  // namespace espalier
