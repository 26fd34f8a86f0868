// From strategies, which are fractions, to plans of whole blocks that fit.
#pragma once

#include <Eigen/Core>
#include <vector>

#include "base/status.h"
#include "model/plan.h"
#include "policy/policy.h"
#include "strategy/strat_net.h"

namespace espalier {

// Blocks of at least a half are whole, the others dropped.
Plan Snap(const Eigen::Ref<const Eigen::VectorXf>& keep);
// Every block, the one with the smallest fraction first.
std::vector<BlockId> DropOrderOf(const Eigen::Ref<const Eigen::VectorXf>& keep);

// What `net` has to say to a limit: its strategies for `n_preferences` preferences, evenly over [0, 1], at the
// observation's workload, in one forward pass; each made to fit by dropping in its own order, and then giving back what
// fits (policy.h). Each plan once. kOutOfBudget where nothing fits. (Bytes do not fall evenly with the preference, so a
// limit cannot be searched for by halving.)
Result<std::vector<Decision>> PlansThatFit(const StratNet& net, const Observation& observation, int n_preferences);

// The inputs of `n` preferences, evenly over [0, 1].
std::vector<StratInput> EvenPreferences(int n, double kv_to_weights);

}  // namespace espalier
