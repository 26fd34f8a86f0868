#include "policy/static_plan.h"

#include <fmt/format.h>

#include "base/check.h"

namespace espalier {

Result<Decision> StaticPolicy::Decide(const Observation& observation) const {
  ESPALIER_CHECK(plan_.n_layer() == observation.n_layer());
  const Footprint footprint = FootprintOf(observation, plan_);
  if (!Fits(observation, footprint)) {
    return OutOfBudget(
        fmt::format("memory budget of {} bytes is below the minimum of {} bytes for plan '{}' at workload {}: the "
                    "process takes {}, "
                    "the plan {}",
                    observation.limit_bytes, observation.process_bytes + footprint.peak_bytes(), plan_.ToText(),
                    observation.workload.ToText(), observation.process_bytes, footprint.peak_bytes()));
  }
  return Decision{plan_, footprint};
}

std::vector<BlockId> StaticPolicy::DropOrder(int n_layer) const {
  std::vector<BlockId> order;
  for (int i = 2 * n_layer - 1; i >= 0; --i) {
    order.push_back({i});
  }
  return order;
}

}  // namespace espalier
