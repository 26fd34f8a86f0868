// The published orders that need no search: from single drops, from how little blocks turn the residual stream, and at
// random. Baselines that everything measured has to beat.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "eval/dense_statistics.h"
#include "eval/plan_evaluator.h"
#include "importance/gsi.h"
#include "profile/profile.h"

namespace espalier {

// Every block dropped alone, once; the least loss goes first (the RAP paper's one-shot ablation).
Result<Ranking> RankByOneShot(PlanEvaluator* evaluator, const RoundObserver& observer = {});

// ShortGPT (arXiv 2403.03853): whole layers, the least 1 - cos(input, output) of the layer first; attention before FFN
// within a layer.
Ranking RankByLayerInfluence(const DenseStatistics& statistics);
// Attention blocks by their own influence, and only then FFN blocks (arXiv 2406.15786, "MHA-drop" in RAP's tables).
Ranking RankAttentionFirst(const DenseStatistics& statistics);
// FFN blocks by their own influence, and only then attention blocks ("FFN-skip").
Ranking RankFfnFirst(const DenseStatistics& statistics);

Ranking RankAtRandom(int n_layer, uint64_t seed);

}  // namespace espalier
