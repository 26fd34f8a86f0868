#include "cli/placement.h"

#include <fmt/format.h>

#include <cstdio>
#include <utility>

#include "base/bytes.h"
#include "policy/data_free.h"
#include "policy/static_plan.h"

namespace espalier {

Result<Placement> Place(std::shared_ptr<const Model> model, const EngineOptions& options, const Workload& workload,
                        const PlacementRequest& request) {
  Placement placement;
  placement.budget = request.budget;
  if (request.plan.given() || !request.budget) {
    ESPALIER_ASSIGN_OR_RETURN(const Plan plan, request.plan.Read(model->n_layer()));
    if (!plan.whole_blocks_only()) {
      return Unsupported(
          fmt::format("plan '{}': blocks can be kept whole (1) or dropped (0), not in between", plan.ToText()));
    }
    placement.policy = std::make_unique<StaticPolicy>(plan);
  } else {
    placement.policy = std::make_unique<DataFreePolicy>();
  }
  ESPALIER_ASSIGN_OR_RETURN(placement.survey, SurveyMemory(std::move(model), options, workload));
  const Observation observation = {.memory = &placement.survey.memory,
                                   .workload = workload,
                                   .limit_bytes = placement.limit_bytes(),
                                   .process_bytes = placement.survey.base.process_bytes};
  ESPALIER_ASSIGN_OR_RETURN(Decision decision, placement.policy->Decide(observation));
  placement.plan = std::move(decision.plan);
  placement.footprint = decision.footprint;
  return placement;
}

void WarnAboutDataFreePlan(const Placement& placement) {
  if (placement.plan.dense() || std::string_view(placement.policy->name()) != DataFreePolicy().name()) {
    return;
  }
  fmt::print(stderr,
             "espalier: warning: {} of {} blocks dropped to fit {} ({} at workload {}), chosen by their place alone, "
             "not by measurement: {}\n",
             placement.plan.dropped().size(), placement.plan.n_block(), placement.budget->ToText(),
             FormatBytes(placement.limit_bytes()), placement.survey.workload.ToText(), placement.plan.ToText());
}

}  // namespace espalier
