// What one dense pass over calibration text says about every block: mean outputs, and how little it turns its input.
#pragma once

#include <functional>
#include <vector>

#include "base/status.h"
#include "eval/windows.h"
#include "model/block_means.h"
#include "runtime/block_runner.h"

namespace espalier {

struct DenseStatistics {
  BlockMeans means;  // over all positions of all windows
  // By block: mean over positions of 1 - cos(residual stream before the block, after it). He et al. 2024
  // (arXiv 2406.15786) drop attention, or FFN, by it.
  std::vector<double> block_influence;
  // By layer: the same over the whole layer. ShortGPT's block influence (arXiv 2403.03853).
  std::vector<double> layer_influence;
};

Result<DenseStatistics> MeasureDenseStatistics(BlockRunner* runner, const Windows& windows,
                                               const std::function<void(int64_t, int64_t)>& progress = {});

}  // namespace espalier
