// A model file as Espalier sees it: validated GGUF, hyper-parameters, and the map from blocks to tensors.
// Immutable after Open; safe to share between threads.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/architecture.h"
#include "model/block.h"
#include "model/gguf_file.h"

namespace espalier {

// The tensors of one block, or of the globals, by role; nullptr where the file has none. Pointers into the GgufFile.
struct TensorGroup {
  std::array<const TensorInfo*, kTensorRoleCount> by_role = {};
  uint64_t file_bytes = 0;  // sum of TensorInfo::bytes

  const TensorInfo* get(TensorRole role) const { return by_role[static_cast<size_t>(role)]; }
};

class Model {
 public:
  // Opens, validates and maps `path`. Every tensor of the file must have a place, and every required tensor must be
  // there with the right shape, and a type whose rows ggml can hold; otherwise the error names the tensor.
  static Result<std::shared_ptr<const Model>> Open(const std::string& path);
  static Result<std::shared_ptr<const Model>> FromGguf(std::shared_ptr<const GgufFile> gguf);

  const GgufFile& gguf() const { return *gguf_; }
  const std::string& path() const { return gguf_->path(); }
  const Architecture& architecture() const { return *architecture_; }
  const HyperParameters& hparams() const { return hparams_; }
  int n_layer() const { return hparams_.n_layer; }
  int n_block() const { return 2 * hparams_.n_layer; }
  const TensorGroup& block(BlockId block) const { return blocks_[static_cast<size_t>(block.index)]; }
  const TensorGroup& globals() const { return globals_; }

  // general.name, or the file's name where it is absent.
  std::string display_name() const;
  // "Q4_K_M", "F16", ...: general.file_type by llama.cpp's names, or the commonest tensor type where it is absent.
  std::string quantization() const;

 private:
  Model() = default;
  std::shared_ptr<const GgufFile> gguf_;
  const Architecture* architecture_ = nullptr;
  HyperParameters hparams_;
  std::vector<TensorGroup> blocks_;
  TensorGroup globals_;
};

}  // namespace espalier
