#include "runtime/head_rows.h"

#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>

#include <cstring>

namespace espalier {
namespace {

// ggml knows this type between two kernels only and has no public decoder for it: a float scale, 256 signed bytes, and
// sums of theirs that dot products take.
constexpr int64_t kQ8KBlock = 256;
constexpr size_t kQ8KBytes = sizeof(float) + 256 + 32;

bool CanDecode(ggml_type type) {
  if (type == GGML_TYPE_Q8_K) {
    return ggml_blck_size(type) == kQ8KBlock && ggml_type_size(type) == kQ8KBytes;
  }
  return type == GGML_TYPE_F32 || ggml_get_type_traits(type)->to_float != nullptr;
}

void DecodeQ8K(const std::byte* packed, std::span<float> values) {
  for (size_t first = 0, at = 0; first < values.size(); first += kQ8KBlock, at += kQ8KBytes) {
    float scale = 0;
    std::memcpy(&scale, packed + at, sizeof(scale));
    for (size_t i = 0; i < kQ8KBlock; ++i) {
      values[first + i] = scale * static_cast<float>(static_cast<int8_t>(packed[at + sizeof(scale) + i]));
    }
  }
}

// REQUIRES: CanDecode(type).
void ToFloats(ggml_type type, const std::byte* from, std::span<float> values) {
  if (type == GGML_TYPE_F32) {
    std::memcpy(values.data(), from, values.size_bytes());
  } else if (type == GGML_TYPE_Q8_K) {
    DecodeQ8K(from, values);
  } else if (type == GGML_TYPE_F16) {
    ggml_cpu_fp16_to_fp32(reinterpret_cast<const ggml_fp16_t*>(from), values.data(),
                          static_cast<int64_t>(values.size()));
  } else {
    ggml_get_type_traits(type)->to_float(from, values.data(), static_cast<int64_t>(values.size()));
  }
}

}  // namespace

std::optional<HeadRows> HeadRows::Of(const ggml_tensor* head) {
  if (head == nullptr || head->buffer == nullptr || head->data == nullptr ||
      !ggml_backend_buffer_is_host(head->buffer) || !ggml_is_contiguous(head)) {
    return std::nullopt;
  }
  const ggml_type_traits_cpu* const cpu = ggml_get_type_traits_cpu(head->type);
  if (cpu->vec_dot == nullptr || !CanDecode(head->type)) {
    return std::nullopt;
  }
  const ggml_type packed = cpu->vec_dot_type;
  if (!CanDecode(packed) || head->ne[0] % ggml_blck_size(packed) != 0 ||
      (packed != GGML_TYPE_F32 && ggml_get_type_traits_cpu(packed)->from_float == nullptr)) {
    return std::nullopt;
  }
  HeadRows rows;
  rows.data_ = static_cast<const std::byte*>(head->data);
  rows.row_bytes_ = head->nb[1];
  rows.n_embd_ = head->ne[0];
  rows.n_vocab_ = head->ne[1];
  rows.type_ = head->type;
  rows.packed_type_ = packed;
  return rows;
}

void HeadRows::Round(std::span<const float> normed, Activations* activations) const {
  const auto type = static_cast<ggml_type>(packed_type_);
  activations->values.assign(normed.begin(), normed.end());
  if (type == GGML_TYPE_F32) {
    return;
  }
  activations->packed.resize(ggml_row_size(type, n_embd_));
  ggml_get_type_traits_cpu(type)->from_float(normed.data(), activations->packed.data(), n_embd_);
  ToFloats(type, activations->packed.data(), activations->values);
}

void HeadRows::Logits(Activations* activations, std::span<const int32_t> ids, std::span<float> out) const {
  const auto type = static_cast<ggml_type>(type_);
  const int n = static_cast<int>(n_embd_);
  if (ggml_is_quantized(type)) {
    const ggml_vec_dot_t dot = ggml_get_type_traits_cpu(type)->vec_dot;
    for (size_t i = 0; i < ids.size(); ++i) {
      dot(n, &out[i], 0, RowAt(ids[i]), 0, activations->packed.data(), 0, 1);
    }
    return;
  }
  // Dot products of 16-bit floats may add up in 16 bits, where matrix kernels add up in 32.
  const ggml_vec_dot_t dot = ggml_get_type_traits_cpu(GGML_TYPE_F32)->vec_dot;
  activations->row.resize(static_cast<size_t>(n_embd_));
  for (size_t i = 0; i < ids.size(); ++i) {
    Decode(ids[i], activations->row);
    dot(n, &out[i], 0, activations->row.data(), 0, activations->values.data(), 0, 1);
  }
}

void HeadRows::Decode(int32_t id, std::span<float> row) const {
  ToFloats(static_cast<ggml_type>(type_), RowAt(id), row);
}

}  // namespace espalier
