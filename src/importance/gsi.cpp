#include "importance/gsi.h"

#include <algorithm>

#include "importance/candidates.h"

namespace espalier {

Result<LeastLoss> GsiRound(PlanEvaluator* evaluator, const Plan& base, std::span<const Plan> candidates,
                           std::span<const BlockId> known) {
  const size_t round = base.dropped().size();
  if (round < known.size()) {
    Plan next = base;
    next.Drop(known[round]);
    const auto found = std::find(candidates.begin(), candidates.end(), next);
    if (found != candidates.end()) {
      ESPALIER_ASSIGN_OR_RETURN(const double loss, evaluator->Measure(next));
      return LeastLoss{static_cast<size_t>(found - candidates.begin()),
                       loss * static_cast<double>(evaluator->tokens_scored())};
    }
  }
  return FindLeastLoss(evaluator, base, candidates);
}

Result<GsiResult> RankByGsi(PlanEvaluator* evaluator, const RoundObserver& observer, const GsiOptions& options) {
  const int n_block = evaluator->model().n_block();
  GsiResult result;
  result.ranking.method = "gsi";
  result.ranking.score.resize(static_cast<size_t>(n_block));
  Plan base = Plan::Dense(evaluator->model().n_layer());
  for (int round = 0; round < n_block && !(options.enough && options.enough()); ++round) {
    const DropCandidates candidates = CandidatesOf(base);
    for (const Plan& plan : candidates.plans) {
      result.naive_flops += static_cast<double>(evaluator->n_windows()) * evaluator->WindowFlops(plan);
    }
    ESPALIER_ASSIGN_OR_RETURN(const LeastLoss least, GsiRound(evaluator, base, candidates.plans, options.known));
    const BlockId block = candidates.blocks[least.index];
    const double loss = least.kl / static_cast<double>(evaluator->tokens_scored());
    result.ranking.drop_order.push_back(block);
    result.ranking.score[static_cast<size_t>(block.index)] = loss;
    base = candidates.plans[least.index];
    if (observer) {
      observer(round + 1, loss);
    }
  }
  return result;
}

}  // namespace espalier
