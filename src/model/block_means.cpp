#include "model/block_means.h"

#include <fmt/format.h>

#include "model/quote.h"

namespace espalier {

const char* AblationName(Ablation ablation) { return ablation == Ablation::kMean ? "mean" : "zero"; }

Result<Ablation> ParseAblation(std::string_view name) {
  for (const Ablation ablation : {Ablation::kZero, Ablation::kMean}) {
    if (name == AblationName(ablation)) {
      return ablation;
    }
  }
  return InvalidArgument(fmt::format("ablation: expected mean or zero, found {}", Quote(name)));
}

}  // namespace espalier
