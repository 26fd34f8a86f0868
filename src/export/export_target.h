// Which of llama.cpp's architectures a pruned model is written as, and what that asks of its tensors.
//
// Layers that lack nothing keep the source's architecture. There are two architectures whose layers may differ:
//  * `deci`: rope of the NORM kind, optional biases. Of a model of the NEOX kind (qwen2) the rows of q and k are
//    reordered head by head, which is exact: a dot product of a query and a key is then the same sum in another order.
//  * `openelm`: rope of the NEOX kind, and norms of queries and keys (qwen3). It has no biases and no output head of
//  its
//    own, q, k and v are one tensor, of one type, and every layer has attention.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "base/status.h"
#include "export/pruned_layers.h"
#include "model/model.h"
#include "model/plan.h"

namespace espalier {

struct ExportTarget {
  std::string architecture;
  std::string reason;            // for people: why this one
  bool by_layer = false;         // layers may differ: their heads and widths are arrays
  bool norm_rope = false;        // rows of q and k, and their biases, go from NEOX to NORM order
  bool fused_attention = false;  // openelm's: q, k and v are one tensor, and each layer has at least one head
};

// The architecture for layers that differ, without a reason; nullopt where llama.cpp has none for the source's.
std::optional<ExportTarget> TargetByLayer(const Architecture& source);

// Why this model can be written with complete layers only, whichever are kept, and what would help; empty where layers
// may differ. A plan that drops what is in the way may still do.
std::string WhyCompleteLayersOnly(const Model& model);

// Whether the source's architecture has the biases that carry means of dropped blocks.
bool HasOutputBiases(const Architecture& source);

// `layers`: of the plan, and one that is empty where means stand before all blocks. `means`: some have to be carried.
// kUnsupported, naming the first layer that is not complete and what would work.
Result<ExportTarget> ChooseTarget(const Model& model, const Plan& plan, std::span<const PrunedLayer> layers,
                                  bool means);

}  // namespace espalier
