// Single entries of the output head's product: for those who need a few logits of a row instead of all of them.
//
// Rows of the head's matrix as they lie in memory, times activations rounded as the CPU backend's kernels round them:
// logits agree with BlockRunner::Head up to the order of summation, at the price of n_embd multiply-adds each.
//
// Thread rule: const after construction, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

struct ggml_tensor;

namespace espalier {

class HeadRows {
 public:
  // nullopt if the matrix is not in memory of ours as it lies in the file (a device's, or rewritten for a kernel), or
  // its type has no dot product whose rounding is known. `head` must outlive the result.
  static std::optional<HeadRows> Of(const ggml_tensor* head);

  int64_t n_embd() const { return n_embd_; }
  int64_t n_vocab() const { return n_vocab_; }

  // A row of activations, rounded as the head's kernel rounds it; and room to work in. One per thread.
  struct Activations {
    std::vector<float> values;      // what it is rounded to
    std::vector<std::byte> packed;  // the same in the form that ggml's dot products take
    std::vector<float> row;         // of the matrix
  };
  // REQUIRES: normed.size() == n_embd.
  void Round(std::span<const float> normed, Activations* activations) const;
  // out[i] = logit of entry ids[i]. REQUIRES: 0 <= ids[i] < n_vocab, out.size() == ids.size().
  void Logits(Activations* activations, std::span<const int32_t> ids, std::span<float> out) const;

  // Row `id` of the matrix as floats. REQUIRES: row.size() == n_embd.
  void Decode(int32_t id, std::span<float> row) const;

 private:
  HeadRows() = default;
  const std::byte* RowAt(int32_t id) const { return data_ + static_cast<size_t>(id) * row_bytes_; }

  const std::byte* data_ = nullptr;
  size_t row_bytes_ = 0;
  int64_t n_embd_ = 0;
  int64_t n_vocab_ = 0;
  int type_ = 0;         // ggml_type of the matrix
  int packed_type_ = 0;  // and of packed activations
};

}  // namespace espalier
