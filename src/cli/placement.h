// From --memory-budget, --plan and --drop to the plan that a command runs.
#pragma once

#include <memory>
#include <optional>

#include "base/status.h"
#include "cli/options.h"
#include "control/survey.h"
#include "policy/policy.h"

namespace espalier {

struct Placement {
  MemorySurvey survey;
  std::unique_ptr<Policy> policy;  // static where the user gave a plan or no budget, else data-free
  std::optional<Budget> budget;
  Plan plan;
  Footprint footprint;  // of the plan at the survey's workload

  static constexpr uint64_t kUnlimited = UINT64_MAX;
  // The limit on managed + process bytes, kUnlimited without a budget.
  uint64_t limit_bytes() const { return budget ? budget->LimitBytes(survey.base) : kUnlimited; }
};

struct PlacementRequest {
  PlanOptions plan;
  std::optional<Budget> budget;
};

// Surveys memory and decides. kOutOfBudget, naming the minimum, where the budget cannot be met.
Result<Placement> Place(std::shared_ptr<const Model> model, const EngineOptions& options, const Workload& workload,
                        const PlacementRequest& request);

// Tells on stderr that blocks were dropped by their place alone, if they were.
void WarnAboutDataFreePlan(const Placement& placement);

}  // namespace espalier
