// RAP's decision process (arXiv 2505.17138) in Gymnasium's words: an episode is one request under one limit. It begins
// with the dense plan; every action drops one more block, or stops; it ends as soon as the plan fits.
//
// Differences from the paper, where it is silent or contradicts itself:
//  * dropped blocks have importance 0 in the state, which has no mask of what is kept;
//  * STOP is masked until the plan fits: an episode that stops before has no plan to serve. Where an episode ends as
//    soon as the plan fits (the default), STOP is therefore never taken;
//  * footprints are those of the engine (model/footprint.h): embeddings, compute buffers, grouped KV heads and staging
//    count.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "model/plan.h"
#include "policy/policy.h"
#include "rl/reward.h"
#include "rl/state.h"

namespace espalier {

// What reset() and step() return beside the observation, which is PruningEnvironment::state(): reward, terminated,
// truncated.
struct EnvironmentStep {
  double reward = 0;
  bool terminated = false;  // the plan fits, STOP was taken, or nothing is left to drop
  bool truncated = false;   // never: an episode has at most as many steps as the model has blocks
};

struct EnvironmentOptions {
  StateKind state = StateKind::kPaper;
  bool ends_when_it_fits = true;  // false: the agent may go on dropping, and says STOP
};

// Thread rule: one thread at a time.
class PruningEnvironment {
 public:
  // `importance`: by block, as GSI scores it. `reward` must outlive the environment.
  // REQUIRES: as many of them as the tasks' models have blocks.
  PruningEnvironment(EnvironmentOptions options, std::span<const double> importance, Reward* reward)
      : PruningEnvironment(options, std::make_shared<const BlockMarks>(importance), reward) {}
  // The same with what states show of the importance, for whoever makes one environment after the other.
  PruningEnvironment(EnvironmentOptions options, std::shared_ptr<const BlockMarks> marks, Reward* reward);

  int n_action() const { return n_block_ + 1; }
  int stop_action() const { return n_block_; }

  // Starts an episode. `task` and the memory model it points to must outlive it. An episode whose dense plan fits is
  // terminated at once.
  EnvironmentStep Reset(const Observation& task);
  // Drops block `action`, or stops. REQUIRES: an episode under way, and an action that is allowed.
  Result<EnvironmentStep> Step(int action);

  // What the agent sees. Valid until the next call of Reset or Step, as the mask.
  const State& state() const { return state_; }
  // By action: whether it is allowed now.
  const ActionMask& mask() const { return mask_; }
  // REQUIRES of these two: an episode has begun.
  const Plan& plan() const { return plan_->plan(); }
  // Of the plan at the episode's workload.
  const Footprint& footprint() const { return plan_->footprint(); }
  const PlanFootprint& plan_footprint() const { return *plan_; }
  bool fits() const { return fits_; }
  // The blocks dropped so far, first to last.
  const std::vector<BlockId>& dropped() const { return dropped_; }

 private:
  EnvironmentStep Observe();

  EnvironmentOptions options_;
  int n_block_;
  std::shared_ptr<const BlockMarks> marks_;
  Reward* reward_;
  std::optional<StateEncoder> encoder_;
  Observation task_;
  std::optional<PlanFootprint> plan_;
  std::vector<BlockId> dropped_;
  bool fits_ = false;
  bool terminated_ = true;
  State state_;
  ActionMask mask_;
};

}  // namespace espalier
