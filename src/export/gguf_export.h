// A plan written as a smaller GGUF that stock llama.cpp loads. Weights are copied as they are, never quantised anew.
//
// Where every layer that is left has both halves, the file keeps its architecture and has fewer layers. Otherwise it is
// of one whose layers may differ (export_target.h). In `deci` they may be without attention (no heads, and no KV cache
// for it) but for the first, which has one head of zeros where it was dropped; in `openelm` every layer without
// attention has that. Where there is no FFN, one of width 32 and zeros stands (llama.cpp's loader takes a width of 0
// and then leaves the attention out in silence).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "export/export_target.h"
#include "export/pruned_layers.h"
#include "export/tensor_source.h"
#include "model/block_means.h"
#include "model/gguf_writer.h"
#include "model/model.h"
#include "model/plan.h"

namespace espalier {

struct ExportOptions {
  // Mean ablation: what dropped blocks add becomes the bias of the kept block before them, which stands at the same
  // place of the residual stream. nullptr: they add nothing. REQUIRES: of this model's shape.
  const BlockMeans* means = nullptr;
  // Written as texts under "espalier.": ("plan", "a3=0"). Stock llama.cpp ignores such keys.
  std::vector<std::pair<std::string, std::string>> provenance;
};

// What is going to be written; nothing is yet. Thread rule: const calls from any thread.
class GgufExport {
 public:
  // kUnsupported, saying why and what would work: a plan of structured width, or with no block left; metadata that says
  // something else of each layer; layers that differ, or means, where no architecture of llama.cpp can be both them and
  // this model (ChooseTarget).
  static Result<GgufExport> Prepare(std::shared_ptr<const Model> model, const Plan& plan,
                                    const ExportOptions& options = {});

  const std::string& architecture() const { return target_.architecture; }
  // Why this one, for people: "every layer has both halves", "layers differ (f3 without an attention block)".
  const std::string& architecture_reason() const { return target_.reason; }
  int n_layer() const { return static_cast<int>(layers_.size()); }
  const std::vector<PrunedLayer>& layers() const { return layers_; }
  // Of the whole file, placeholders and metadata included: what it will have on disk, to the byte.
  uint64_t file_bytes() const { return file_bytes_; }

  // Whole or not at all; a file that is there already is replaced. kInvalidArgument if `path` is a file of the model's
  // own, kIo where it cannot be written (the disk is full), kAborted, with nothing left behind, once `*stop` is true.
  Status WriteTo(const std::string& path, const std::function<void(uint64_t done, uint64_t total)>& progress = {},
                 const std::atomic<bool>* stop = nullptr) const;

 private:
  class Builder;

  std::shared_ptr<const Model> model_;
  ExportTarget target_;
  std::vector<PrunedLayer> layers_;
  std::vector<std::byte> header_;
  std::vector<TensorSource> tensors_;  // in the order of the header
  uint64_t file_bytes_ = 0;
};

}  // namespace espalier
