// Where the bytes of a tensor come from that is written: from tensors of the source file, or made here.
//
// Rows of a matrix are quantised each on its own. So rows in another order, and matrices one behind the other, are
// still the same weights, whatever their type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/file.h"
#include "base/status.h"
#include "model/gguf_file.h"

namespace espalier {

// Does not own the tensors of the source. Thread rule: const calls from any thread.
class TensorSource {
 public:
  static TensorSource Copied(const TensorInfo& tensor) { return Joined({&tensor}); }
  // Within each head the rows that NEOX rope turns together (i, i + head_dim / 2) come to where NORM rope has them
  // (2i, 2i + 1). Elements of a vector count as rows. REQUIRES: whole heads, and an even head_dim.
  static TensorSource ForNormRope(const TensorInfo& tensor, int head_dim);
  // One behind the other. REQUIRES: of one type, with rows of one length.
  static TensorSource Joined(std::vector<const TensorInfo*> tensors);
  static TensorSource Made(std::vector<std::byte> bytes);

  uint64_t bytes() const;

  // Hands all bytes to `take`, in order, in pieces of about `piece_bytes` at most (but two rows, whatever their length)
  // that are valid during the call. Returns the first failure, of reading or of `take`.
  Status Read(const ByteSource& source, const std::function<Status(std::span<const std::byte>)>& take,
              uint64_t piece_bytes = 4 * kMiB) const;

 private:
  Status ReadForNormRope(const ByteSource& source, const std::function<Status(std::span<const std::byte>)>& take,
                         uint64_t piece_bytes) const;

  std::vector<const TensorInfo*> tensors_;  // none: made_
  int head_dim_ = 0;                        // 0: rows stay in their order
  std::vector<std::byte> made_;
};

}  // namespace espalier
