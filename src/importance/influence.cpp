#include "importance/influence.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "importance/candidates.h"

namespace espalier {
namespace {

// All blocks, smaller keys first; equal ones in order of execution.
template <class Key>
std::vector<BlockId> OrderBy(int n_block, Key key) {
  std::vector<BlockId> order;
  for (int b = 0; b < n_block; ++b) {
    order.push_back({b});
  }
  std::stable_sort(order.begin(), order.end(), [&](BlockId a, BlockId b) { return key(a) < key(b); });
  return order;
}

Ranking RankKindFirst(const char* method, BlockKind first, const std::vector<double>& influence) {
  const auto key = [&](BlockId block) {
    return std::pair(block.kind() != first, influence[static_cast<size_t>(block.index)]);
  };
  return {method, 0, 0, OrderBy(static_cast<int>(influence.size()), key), influence};
}

// splitmix64: the same orders on every machine, which std::shuffle does not promise.
uint64_t Next(uint64_t& state) {
  state += 0x9E3779B97F4A7C15U;
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  return z ^ (z >> 31);
}

}  // namespace

Result<Ranking> RankByOneShot(PlanEvaluator* evaluator, const RoundObserver& observer) {
  const DropCandidates candidates = CandidatesOf(Plan::Dense(evaluator->model().n_layer()));
  Ranking ranking;
  ranking.method = "one-shot";
  for (const Plan& plan : candidates.plans) {
    ESPALIER_ASSIGN_OR_RETURN(const double loss, evaluator->Measure(plan));
    ranking.score.push_back(loss);
    if (observer) {
      observer(static_cast<int>(ranking.score.size()), loss);
    }
  }
  ranking.drop_order = OrderBy(evaluator->model().n_block(),
                               [&](BlockId block) { return ranking.score[static_cast<size_t>(block.index)]; });
  return ranking;
}

Ranking RankByLayerInfluence(const DenseStatistics& statistics) {
  const auto& influence = statistics.layer_influence;
  std::vector<double> score;
  for (const double of_layer : influence) {
    score.insert(score.end(), 2, of_layer);
  }
  const auto key = [&](BlockId block) { return influence[static_cast<size_t>(block.layer())]; };
  auto order = OrderBy(static_cast<int>(score.size()), key);
  return {"shortgpt", 0, 0, std::move(order), std::move(score)};
}

Ranking RankAttentionFirst(const DenseStatistics& statistics) {
  return RankKindFirst("mha-drop", BlockKind::kAttention, statistics.block_influence);
}

Ranking RankFfnFirst(const DenseStatistics& statistics) {
  return RankKindFirst("ffn-skip", BlockKind::kFfn, statistics.block_influence);
}

Ranking RankAtRandom(int n_layer, uint64_t seed) {
  Ranking ranking;
  ranking.method = "random";
  ranking.seed = seed;
  for (int b = 0; b < 2 * n_layer; ++b) {
    ranking.drop_order.push_back({b});
  }
  uint64_t state = seed;
  for (size_t i = ranking.drop_order.size(); i > 1; --i) {
    std::swap(ranking.drop_order[i - 1], ranking.drop_order[Next(state) % i]);
  }
  return ranking;
}

}  // namespace espalier
