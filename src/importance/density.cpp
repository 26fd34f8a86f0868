#include "importance/density.h"

#include <algorithm>
#include <cmath>

#include "importance/candidates.h"
#include "importance/race.h"

namespace espalier {

uint64_t BytesFreed(const MemoryModel& memory, BlockId block, int64_t kv_cells) {
  const uint64_t weights = memory.block_bytes[static_cast<size_t>(block.index)];
  return block.is_attention() ? weights + KvBytesOfFullCache(memory.kv, kv_cells) : weights;
}

Result<Ranking> RankByDensity(PlanEvaluator* evaluator, const MemoryModel& memory, int64_t kv_cells,
                              const RoundObserver& observer) {
  const int n_block = evaluator->model().n_block();
  Ranking ranking;
  ranking.method = "density";
  ranking.kv_cells = kv_cells;
  ranking.score.resize(static_cast<size_t>(n_block));
  Plan base = Plan::Dense(evaluator->model().n_layer());
  for (int round = 0; round < n_block; ++round) {
    const DropCandidates candidates = CandidatesOf(base);
    std::vector<Contender> contenders;
    for (size_t i = 0; i < candidates.plans.size(); ++i) {
      const auto bytes = static_cast<double>(BytesFreed(memory, candidates.blocks[i], kv_cells));
      contenders.push_back({candidates.plans[i], bytes});
    }
    ESPALIER_ASSIGN_OR_RETURN(const auto finalists, Race(evaluator, base, contenders));
    const size_t best = finalists.front().index;
    const BlockId block = candidates.blocks[best];
    ESPALIER_ASSIGN_OR_RETURN(const double loss, evaluator->Measure(candidates.plans[best]));
    ranking.drop_order.push_back(block);
    ranking.score[static_cast<size_t>(block.index)] = loss;
    base = candidates.plans[best];
    if (observer) {
      observer(round + 1, loss);
    }
  }
  return ranking;
}

std::vector<int64_t> SpreadOfCells(const MemoryModel& memory, int n) {
  constexpr double kLeast = 0.05;
  constexpr double kMost = 4;
  std::vector<int64_t> cells;
  for (int i = 0; i < n; ++i) {
    const double share = n > 1 ? static_cast<double>(i) / (n - 1) : 0;
    const double ratio = kLeast * std::pow(kMost / kLeast, share);
    cells.push_back(std::max<int64_t>(1, std::llround(ratio * memory.cells_of_weights())));
  }
  cells.erase(std::unique(cells.begin(), cells.end()), cells.end());
  return cells;
}

}  // namespace espalier
