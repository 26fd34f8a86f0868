#include "export/tensor_source.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace espalier {

TensorSource TensorSource::ForNormRope(const TensorInfo& tensor, int head_dim) {
  const int64_t rows = tensor.n_dims == 1 ? tensor.ne[0] : tensor.ne[1];
  ESPALIER_CHECK(head_dim > 0 && head_dim % 2 == 0 && rows % head_dim == 0);
  TensorSource result = Copied(tensor);
  result.head_dim_ = head_dim;
  return result;
}

TensorSource TensorSource::Joined(std::vector<const TensorInfo*> tensors) {
  for (const TensorInfo* tensor : tensors) {
    ESPALIER_CHECK(tensor->type == tensors.front()->type && tensor->ne[0] == tensors.front()->ne[0]);
  }
  TensorSource result;
  result.tensors_ = std::move(tensors);
  return result;
}

TensorSource TensorSource::Made(std::vector<std::byte> bytes) {
  TensorSource result;
  result.made_ = std::move(bytes);
  return result;
}

uint64_t TensorSource::bytes() const {
  uint64_t sum = made_.size();
  for (const TensorInfo* tensor : tensors_) {
    sum += tensor->bytes;
  }
  return sum;
}

Status TensorSource::Read(const ByteSource& source, const std::function<Status(std::span<const std::byte>)>& take,
                          uint64_t piece_bytes) const {
  if (tensors_.empty()) {
    return take(made_);
  }
  if (head_dim_ != 0) {
    return ReadForNormRope(source, take, piece_bytes);
  }
  std::vector<std::byte> piece;
  for (const TensorInfo* tensor : tensors_) {
    for (uint64_t done = 0; done < tensor->bytes; done += piece.size()) {
      piece.resize(std::min(piece_bytes, tensor->bytes - done));
      ESPALIER_RETURN_IF_ERROR(source.ReadAt(tensor->offset + done, piece));
      ESPALIER_RETURN_IF_ERROR(take(piece));
    }
  }
  return Status::Ok();
}

// Pairs of rows, as many as make a piece: those of the first half of a head are a stretch of the file, and those of the
// second half another.
Status TensorSource::ReadForNormRope(const ByteSource& source,
                                     const std::function<Status(std::span<const std::byte>)>& take,
                                     uint64_t piece_bytes) const {
  const TensorInfo& tensor = *tensors_.front();
  const auto n_row = static_cast<uint64_t>(tensor.n_dims == 1 ? tensor.ne[0] : tensor.ne[1]);
  const uint64_t row = tensor.bytes / n_row;
  const auto head = static_cast<uint64_t>(head_dim_);
  const uint64_t half = head / 2;
  const uint64_t most = std::clamp<uint64_t>(piece_bytes / (2 * row), 1, half);
  std::vector<std::byte> from;  // rows of the first half, and behind them those of the second
  std::vector<std::byte> piece;
  for (uint64_t first_row = 0; first_row < n_row; first_row += head) {
    for (uint64_t i = 0; i < half; i += most) {
      const uint64_t n = std::min(most, half - i);
      from.resize(2 * n * row);
      piece.resize(2 * n * row);
      const std::span halves(from);
      ESPALIER_RETURN_IF_ERROR(source.ReadAt(tensor.offset + (first_row + i) * row, halves.first(n * row)));
      ESPALIER_RETURN_IF_ERROR(source.ReadAt(tensor.offset + (first_row + half + i) * row, halves.last(n * row)));
      for (uint64_t j = 0; j < 2 * n; ++j) {
        const auto old = halves.subspan((j % 2 * n + j / 2) * row, row);
        std::copy(old.begin(), old.end(), piece.begin() + static_cast<std::ptrdiff_t>(j * row));
      }
      ESPALIER_RETURN_IF_ERROR(take(piece));
    }
  }
  return Status::Ok();
}

}  // namespace espalier
