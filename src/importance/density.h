// The density chain: sequential greedy by loss per byte. After every removal all the rest is measured again, and the
// block goes whose removal costs the least loss for the bytes it frees at a workload: weights, and KV for attention.
// Which kind of block is cheap depends on the tokens resident, so there is one chain per number of KV cells.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "eval/plan_evaluator.h"
#include "importance/gsi.h"
#include "model/footprint.h"
#include "profile/profile.h"

namespace espalier {

// Bytes that dropping `block` frees where the KV cache is made for `kv_cells` cells, all in use; `memory` may be of a
// smaller one.
uint64_t BytesFreed(const MemoryModel& memory, BlockId block, int64_t kv_cells);

// Each round is a race (importance/race.h), not a proof. The ranking's scores are the losses after each removal.
Result<Ranking> RankByDensity(PlanEvaluator* evaluator, const MemoryModel& memory, int64_t kv_cells,
                              const RoundObserver& observer = {});

// `n` numbers of KV cells over the range in which the KV cache of the dense model takes 0.05 to 4 times the bytes of
// its weights, evenly by ratio: below, weights are all that counts, above, KV.
std::vector<int64_t> SpreadOfCells(const MemoryModel& memory, int n);

}  // namespace espalier
