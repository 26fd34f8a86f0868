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

}  // namespace

Footprint FootprintOf(const Observation& observation, const Plan& plan) {
  return PredictFootprint(*observation.memory, plan, observation.workload);
}

bool Fits(const Observation& observation, const Footprint& footprint) {
  return observation.process_bytes + footprint.peak_bytes() <= observation.limit_bytes;
}

Result<Decision> DropUntilItFits(const Observation& observation, std::span<const BlockId> order) {
  ESPALIER_CHECK(order.size() == observation.memory->block_bytes.size());
  PlanFootprint plan(*observation.memory, observation.workload);
  size_t n_dropped = 0;
  while (n_dropped < order.size() && !Fits(observation, plan.footprint())) {
    plan.Drop(order[n_dropped++]);
  }
  if (!Fits(observation, plan.footprint())) {
    return BelowMinimum(observation, plan.footprint());
  }
  return GiveBackWhatFits(observation, std::move(plan), order.first(n_dropped));
}

Decision GiveBackWhatFits(const Observation& observation, PlanFootprint plan, std::span<const BlockId> dropped) {
  const auto slack = [&] {
    return observation.limit_bytes - observation.process_bytes - plan.footprint().peak_bytes();
  };
  // Most are larger than what is left, whatever staging takes.
  std::vector<BlockId> candidates;
  for (size_t i = dropped.size(); i-- > 0;) {
    if (plan.bytes_of(dropped[i]) <= slack()) {
      candidates.push_back(dropped[i]);
    }
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [&](BlockId a, BlockId b) { return plan.bytes_of(a) > plan.bytes_of(b); });
  for (const BlockId block : candidates) {
    if (plan.bytes_of(block) > slack()) {
      continue;
    }
    plan.Restore(block);
    if (!Fits(observation, plan.footprint())) {
      plan.Drop(block);
    }
  }
  return {plan.plan(), plan.footprint(), {}};
}

}  // namespace espalier
