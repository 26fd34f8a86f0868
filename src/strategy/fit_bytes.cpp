#include "strategy/fit_bytes.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/check.h"

namespace espalier {
namespace {

// For a plan all of whose kept blocks are such that none of them may go: one of them makes room for a dropped one, the
// last in the order with which the plan fits. Where none does, the plan is as it was; `least` is the least of all seen.
bool ExchangeToFit(const PlanBytes& bytes, uint64_t max_bytes, std::span<const BlockId> order, Plan* plan,
                   uint64_t* least) {
  for (const BlockId going : order) {
    if (!plan->kept(going)) {
      continue;
    }
    plan->Drop(going);
    for (auto staying = order.rbegin(); staying != order.rend(); ++staying) {
      if (plan->kept(*staying) || *staying == going) {
        continue;
      }
      plan->Restore(*staying);
      const uint64_t taken = bytes(*plan);
      *least = std::min(*least, taken);
      if (taken <= max_bytes) {
        return true;
      }
      plan->Drop(*staying);
    }
    plan->Restore(going);
  }
  return false;
}

}  // namespace

Result<Plan> DropUntilItTakes(const PlanBytes& bytes, uint64_t max_bytes, std::span<const BlockId> order) {
  ESPALIER_CHECK(order.size() % 2 == 0);
  Plan plan = Plan::Dense(static_cast<int>(order.size() / 2));
  const uint64_t taken = DropDownTo(bytes, max_bytes, order, &plan);
  uint64_t least = taken;
  if (taken > max_bytes && !ExchangeToFit(bytes, max_bytes, order, &plan, &least)) {
    return OutOfBudget(
        fmt::format("{} bytes are below the least that a plan of whole blocks takes, {} bytes", max_bytes, least));
  }
  GiveBackUpTo(bytes, max_bytes, order, &plan);
  return plan;
}

uint64_t DropDownTo(const PlanBytes& bytes, uint64_t max_bytes, std::span<const BlockId> order, Plan* plan) {
  uint64_t taken = bytes(*plan);
  for (const BlockId block : order) {
    if (taken <= max_bytes) {
      break;
    }
    if (!plan->kept(block)) {
      continue;
    }
    plan->Drop(block);
    const uint64_t fewer = bytes(*plan);
    if (fewer == kNoSuchPlan) {
      plan->Restore(block);
    } else {
      taken = fewer;
    }
  }
  return taken;
}

void GiveBackUpTo(const PlanBytes& bytes, uint64_t max_bytes, std::span<const BlockId> order, Plan* plan) {
  while (true) {
    std::optional<BlockId> returning;
    uint64_t most = 0;
    for (auto block = order.rbegin(); block != order.rend(); ++block) {
      if (plan->kept(*block)) {
        continue;
      }
      plan->Restore(*block);
      const uint64_t taken = bytes(*plan);
      plan->Drop(*block);
      if (taken <= max_bytes && (!returning || taken > most)) {
        returning = *block;
        most = taken;
      }
    }
    if (!returning) {
      return;
    }
    plan->Restore(*returning);
  }
}

uint64_t BytesWithOneMore(const PlanBytes& bytes, const Plan& plan) {
  uint64_t least = kNoSuchPlan;
  for (const BlockId block : plan.dropped()) {
    Plan larger = plan;
    larger.Restore(block);
    least = std::min(least, bytes(larger));
  }
  return least;
}

}  // namespace espalier
