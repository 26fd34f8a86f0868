#include "policy/policy.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace espalier {
namespace {

Status BelowMinimum(const Observation& observation, const Footprint& least) {
  return OutOfBudget(fmt::format(
      "memory budget of {} bytes is below the minimum of {} bytes for workload {}: the process takes {}, and {} are "
      "left when every block is dropped",
      observation.limit_bytes, observation.process_bytes + least.peak_bytes(), observation.workload.ToText(),
      observation.process_bytes, least.peak_bytes()));
}

// What the block would add to the footprint of a plan that lacks it, staging left aside.
uint64_t BytesOf(const Observation& observation, BlockId block) {
  const uint64_t weights = observation.memory->block_bytes[static_cast<size_t>(block.index)];
  return block.is_attention() ? weights + KvBytes(observation.memory->kv, observation.workload.kv_cells) : weights;
}

}  // namespace

Footprint FootprintOf(const Observation& observation, const Plan& plan) {
  return PredictFootprint(*observation.memory, plan, observation.workload);
}

bool Fits(const Observation& observation, const Footprint& footprint) {
  return observation.process_bytes + footprint.peak_bytes() <= observation.limit_bytes;
}

Result<Decision> DropUntilItFits(const Observation& observation, std::span<const BlockId> order) {
  ESPALIER_CHECK(order.size() == observation.memory->block_bytes.size());
  Decision decision = {Plan::Dense(observation.n_layer()), {}};
  decision.footprint = FootprintOf(observation, decision.plan);
  std::vector<BlockId> dropped;
  for (const BlockId block : order) {
    if (Fits(observation, decision.footprint)) {
      break;
    }
    decision.plan.Drop(block);
    decision.footprint = FootprintOf(observation, decision.plan);
    dropped.push_back(block);
  }
  if (!Fits(observation, decision.footprint)) {
    return BelowMinimum(observation, decision.footprint);
  }
  return GiveBackWhatFits(observation, std::move(decision), std::move(dropped));
}

Decision GiveBackWhatFits(const Observation& observation, Decision decision, std::vector<BlockId> dropped) {
  std::reverse(dropped.begin(), dropped.end());
  std::stable_sort(dropped.begin(), dropped.end(),
                   [&](BlockId a, BlockId b) { return BytesOf(observation, a) > BytesOf(observation, b); });
  for (const BlockId block : dropped) {
    Plan larger = decision.plan;
    larger.Restore(block);
    const Footprint footprint = FootprintOf(observation, larger);
    if (Fits(observation, footprint)) {
      decision = {std::move(larger), footprint};
    }
  }
  return decision;
}

}  // namespace espalier
