#include "strategy/strategy_plans.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "base/check.h"

namespace espalier {

Plan Snap(const Eigen::Ref<const Eigen::VectorXf>& keep) {
  Plan plan = Plan::Dense(static_cast<int>(keep.size() / 2));
  for (int b = 0; b < plan.n_block(); ++b) {
    if (keep[b] < 0.5F) {
      plan.Drop({b});
    }
  }
  return plan;
}

std::vector<BlockId> DropOrderOf(const Eigen::Ref<const Eigen::VectorXf>& keep) {
  std::vector<BlockId> order;
  for (int b = 0; b < static_cast<int>(keep.size()); ++b) {
    order.push_back({b});
  }
  std::stable_sort(order.begin(), order.end(), [&](BlockId a, BlockId b) { return keep[a.index] < keep[b.index]; });
  return order;
}

std::vector<StratInput> EvenPreferences(int n, double kv_to_weights) {
  std::vector<StratInput> inputs;
  for (int i = 0; i < n; ++i) {
    inputs.push_back({{(i + 0.5) / n}, kv_to_weights});
  }
  return inputs;
}

Result<std::vector<Decision>> PlansThatFit(const StratNet& net, const Observation& observation, int n_preferences) {
  ESPALIER_CHECK(net.n_block() == 2 * observation.n_layer());
  const double ratio = static_cast<double>(observation.workload.kv_cells) / observation.memory->cells_of_weights();
  const Eigen::MatrixXf keep = net.Forward(EvenPreferences(n_preferences, ratio));
  std::vector<Decision> decisions;
  std::set<std::string> seen;
  for (Eigen::Index i = 0; i < keep.cols(); ++i) {
    ESPALIER_ASSIGN_OR_RETURN(Decision decision, DropUntilItFits(observation, DropOrderOf(keep.col(i))));
    if (seen.insert(decision.plan.ToText()).second) {
      decisions.push_back(std::move(decision));
    }
  }
  return decisions;
}

}  // namespace espalier
