#include "policy/order_policy.h"

#include <algorithm>
#include <iterator>

#include "base/check.h"

namespace espalier {

std::vector<BlockId> OrderPolicy::DropOrder(int n_layer) const {
  ESPALIER_CHECK(ranking_.drop_order.size() == 2 * static_cast<size_t>(n_layer));
  return ranking_.drop_order;
}

DensityPolicy::DensityPolicy(const Profile& profile) {
  std::copy_if(profile.rankings.begin(), profile.rankings.end(), std::back_inserter(chains_.rankings),
               [&](const Ranking& ranking) { return ranking.method == name(); });
  ESPALIER_CHECK(!chains_.rankings.empty());
  std::stable_sort(chains_.rankings.begin(), chains_.rankings.end(),
                   [](const Ranking& a, const Ranking& b) { return a.kv_cells < b.kv_cells; });
}

Result<Decision> DensityPolicy::Decide(const Observation& observation) const {
  return DropUntilItFits(observation, chains_.FindRanking(name(), observation.workload.kv_cells)->drop_order);
}

std::vector<BlockId> DensityPolicy::DropOrder(int n_layer) const {
  const std::vector<BlockId>& order = chains_.rankings[chains_.rankings.size() / 2].drop_order;
  ESPALIER_CHECK(order.size() == 2 * static_cast<size_t>(n_layer));
  return order;
}

}  // namespace espalier
