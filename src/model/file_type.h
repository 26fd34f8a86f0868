// What people call a model's quantisation ("Q4_K_M"): which type each tensor of such a file has. The numbers are
// llama.cpp's llama_ftype, the mixes those of its llama-quantize without an importance matrix.
#pragma once

#include <ggml.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "model/architecture.h"

namespace espalier {

struct FileType {
  const char* name;      // "Q4_K_M"
  int number;            // general.file_type
  ggml_type base;        // of most matrices
  bool writable = true;  // false: needs an importance matrix or a kind of model that we do not write
};

// Case does not matter. Fails on unknown names, and on types that are not writable; the message lists those that are.
Result<const FileType*> ParseFileType(std::string_view name);

// nullptr for an unknown number.
const FileType* FindFileType(int64_t number);

// The type of a matrix of `role` (in layer `il`, for block tensors) with rows of `row` elements in a file of `type`.
// Where the row does not fit the type's blocks it falls back as llama-quantize does: to a type with blocks of 32, and
// to F16 where not even they fit. REQUIRES: type.writable
ggml_type MatrixType(const FileType& type, const HyperParameters& hparams, TensorRole role, int il, int64_t row);

}  // namespace espalier
