// From --memory-budget, --plan and --drop to the plan that a command runs.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/status.h"
#include "cli/options.h"
#include "cli/policy_choice.h"
#include "control/survey.h"
#include "policy/policy.h"

namespace espalier {

struct Placement {
  MemorySurvey survey;
  std::unique_ptr<Policy> policy;
  ProfileInUse profile;  // only its path and ablation: what was measured is in the policy
  std::optional<Budget> budget;
  Plan plan;
  Footprint footprint;                // of the plan at the survey's workload
  std::optional<PredictedLoss> loss;  // of the plan, as far as a profile tells

  static constexpr uint64_t kUnlimited = UINT64_MAX;
  // The limit on managed + process bytes, kUnlimited without a budget.
  uint64_t limit_bytes() const { return budget ? budget->LimitBytes(survey.base) : kUnlimited; }
};

struct PlacementRequest {
  PlanOptions plan;
  std::optional<Budget> budget;
  PolicyFlags policy = {};
  ProfileInUse profile = {};  // as opened with `policy`
};

// Chooses a policy, lets go of the profile (its archive would count as memory of the process), surveys memory and
// decides. kOutOfBudget, naming the minimum, where the budget cannot be met.
Result<Placement> Place(std::shared_ptr<const Model> model, const EngineOptions& options, const Workload& workload,
                        PlacementRequest request);

// "predicted loss 0.4123 nats per token (measured)", or "(estimated)"; "predicted loss unknown".
std::string DescribeLoss(const std::optional<PredictedLoss>& loss);

// Tells on stderr that a profile was found beside the model, if one was.
void AnnounceProfile(const Placement& placement);
// Likewise, and what was dropped by which policy at what predicted loss, if anything was. A warning where blocks were
// dropped by their place alone.
void AnnouncePlacement(const Placement& placement);

}  // namespace espalier
