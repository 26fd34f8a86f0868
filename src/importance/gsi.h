// Greedy Sequential Importance (RAP, arXiv 2505.17138; the same as BlockPruner, arXiv 2406.10594): drop the block whose
// removal hurts least, measure all the rest again, and so on to the last block.
//
// Exact: the order is that of the naive loop, which computes every candidate of every round whole. Work is saved by
// starting where a plan first differs from those before it (eval/prefix_cache.h) and by best-first search
// (best_first.h); figures in docs/results/measurement.md. Hurt is measured as loss, KL(dense || plan), where the papers
// take perplexity: it is what everything else here is measured in, its noise is an order of magnitude smaller, and only
// a quantity that never falls from window to window lets a candidate be abandoned.
#pragma once

#include <functional>
#include <span>

#include "base/status.h"
#include "eval/plan_evaluator.h"
#include "importance/best_first.h"
#include "profile/profile.h"

namespace espalier {

// After each round: blocks dropped so far, and the loss.
using RoundObserver = std::function<void(int dropped, double loss)>;

struct GsiOptions {
  // The order of RankByGsi by the same evaluator, or its beginning, where it was made before: its rounds are recalled,
  // not run.
  std::span<const BlockId> known = {};
  std::function<bool()> enough = {};  // asked before every round; true ends the search there
};

struct GsiResult {
  Ranking ranking;         // method "gsi"; where there was enough, of the blocks that went, the others without a score
  double naive_flops = 0;  // of the naive loop: every candidate of every round, whole
};

Result<GsiResult> RankByGsi(PlanEvaluator* evaluator, const RoundObserver& observer = {},
                            const GsiOptions& options = {});

// One round: which of `candidates`, each `base` with a block less, loses least.
Result<LeastLoss> GsiRound(PlanEvaluator* evaluator, const Plan& base, std::span<const Plan> candidates,
                           std::span<const BlockId> known);

}  // namespace espalier
