#include "importance/gsi.h"

#include "importance/best_first.h"
#include "importance/candidates.h"

namespace espalier {

Result<GsiResult> RankByGsi(PlanEvaluator* evaluator, const RoundObserver& observer) {
  const int n_block = evaluator->model().n_block();
  GsiResult result;
  result.ranking.method = "gsi";
  result.ranking.score.resize(static_cast<size_t>(n_block));
  Plan base = Plan::Dense(evaluator->model().n_layer());
  for (int round = 0; round < n_block; ++round) {
    const DropCandidates candidates = CandidatesOf(base);
    for (const Plan& plan : candidates.plans) {
      result.naive_flops += static_cast<double>(evaluator->n_windows()) * evaluator->WindowFlops(plan);
    }
    ESPALIER_ASSIGN_OR_RETURN(const LeastLoss least, FindLeastLoss(evaluator, base, candidates.plans));
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
