// The size of a plan's file without making it: for searches that weigh thousands of plans against a limit in bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"
#include "export/gguf_export.h"
#include "model/model.h"
#include "model/plan.h"

namespace espalier {

// Thread rule: const calls from any thread.
class ExportBytes {
 public:
  // `options` as the files will have them; of a provenance that differs from plan to plan its longest texts. What
  // GgufExport::Prepare returns where the model cannot be exported.
  static Result<ExportBytes> Create(const std::shared_ptr<const Model>& model, const ExportOptions& options = {});

  // Never less than GgufExport's file_bytes() for the same plan and options, and at most kGgufAlignment more. A plan
  // that cannot be written counts what its file would have if it could (one without any block: what all files have), so
  // that searches go on: GgufExport says why it cannot. Not quite a sum over blocks: half a layer takes a placeholder
  // for the other half. REQUIRES: a plan of whole blocks of this model.
  uint64_t operator()(const Plan& plan) const;

 private:
  // Some tensors of one layer.
  struct Part {
    uint64_t data = 0;   // padded, as the file has it
    uint64_t infos = 0;  // entries of the tensor table, without the digits of the layer's number
    uint64_t n_tensors = 0;
    void Add(std::size_t name_bytes, int n_dims, uint64_t bytes);
  };
  struct Total;
  void AddBlock(const Model& model, BlockId block, bool fused);
  Status MeasureMetadata(const std::shared_ptr<const Model>& model, const ExportOptions& options);
  Total TotalOf(const Plan& plan) const;

  std::vector<Part> blocks_;
  std::vector<Part> blocks_by_layer_;  // in a file in which layers differ
  // What a block's part grows by where it takes up the means of dropped blocks behind it: empty without means, and
  // where the block has a bias already.
  std::vector<Part> biases_;
  Part globals_;
  Part attention_placeholder_;
  Part attention_placeholder_bias_;
  Part ffn_placeholder_;
  bool has_means_ = false;
  bool means_differ_ = false;          // with means a file has another architecture, even if every layer is complete
  bool attention_everywhere_ = false;  // in a file in which layers differ: the placeholder, too, not in the first alone
  uint64_t metadata_ = 0;              // of a file of the source's architecture
  uint64_t metadata_per_layer_ = 0;    // of one in which layers differ, without their arrays
};

}  // namespace espalier
