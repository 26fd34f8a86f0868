#include "strategy/refine.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "strategy/compression_request.h"

namespace espalier {
namespace {

// Restores `back`, drops `going`, and what else is needed. False where it cannot be made to fit.
bool Exchange(const PlanBytes& bytes, uint64_t max_bytes, std::span<const BlockId> order, BlockId back, BlockId going,
              Plan* plan) {
  plan->Restore(back);
  plan->Drop(going);
  for (const BlockId block : order) {
    if (bytes(*plan) <= max_bytes) {
      break;
    }
    if (plan->kept(block) && block != back) {
      plan->Drop(block);
    }
  }
  if (plan->keeps_nothing() || bytes(*plan) > max_bytes) {
    return false;
  }
  GiveBackUpTo(bytes, max_bytes, order, plan);
  return true;
}

}  // namespace

Plan Refine(const LossSurrogate& surrogate, const PlanBytes& bytes, uint64_t max_bytes, std::span<const BlockId> order,
            Plan plan, int most_steps) {
  double log_loss = surrogate.LogMeans({&plan, 1}).front();
  std::set<std::string> seen = {plan.ToText()};
  for (int step = 0; step < most_steps; ++step) {
    std::vector<Plan> neighbours;
    for (const BlockId back : order) {
      for (const BlockId going : order) {
        if (plan.kept(back) || !plan.kept(going)) {
          continue;
        }
        Plan neighbour = plan;
        if (Exchange(bytes, max_bytes, order, back, going, &neighbour) && seen.insert(neighbour.ToText()).second) {
          neighbours.push_back(std::move(neighbour));
        }
      }
    }
    const std::vector<double> means = surrogate.LogMeans(neighbours);
    const auto best = std::min_element(means.begin(), means.end());
    if (best == means.end() || *best >= log_loss - 1e-6) {
      break;
    }
    log_loss = *best;
    plan = std::move(neighbours[static_cast<size_t>(best - means.begin())]);
  }
  return plan;
}

}  // namespace espalier
