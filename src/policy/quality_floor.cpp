#include "policy/quality_floor.h"

#include <fmt/format.h>

#include <string>

namespace espalier {

Result<Decision> QualityFloor::Decide(const Observation& observation) const {
  ESPALIER_ASSIGN_OR_RETURN(Decision decision, policy_->Decide(observation));
  if (!decision.loss) {
    decision.loss = table_->Predict(decision.plan);
  }
  if (!max_loss_ || (decision.loss && decision.loss->nats <= *max_loss_)) {
    return decision;
  }
  const std::string found = decision.loss
                                ? fmt::format("the {} loss of {:.4g} nats per token is above",
                                              decision.loss->measured ? "measured" : "estimated", decision.loss->nats)
                                : std::string("no loss is known to compare with");
  return OutOfBudget(fmt::format(
      "policy {}, memory budget of {} bytes at workload {}, plan '{}': {} the quality floor of {:.4g}; the smallest "
      "measured plan that meets it needs a memory budget of {} bytes",
      name(), observation.limit_bytes, observation.workload.ToText(), decision.plan.ToText(), found, *max_loss_,
      table_->SmallestLimit(observation, *max_loss_)));
}

}  // namespace espalier
