#include "cli/placement.h"

#include <fmt/format.h>

#include <cstdio>
#include <utility>

#include "base/bytes.h"
#include "base/process_memory.h"
#include "model/quote.h"
#include "policy/data_free.h"

namespace espalier {

Result<Placement> Place(std::shared_ptr<const Model> model, const EngineOptions& options, const Workload& workload,
                        PlacementRequest request) {
  Placement placement;
  placement.budget = request.budget;
  const ServedModel served = {model->n_layer(), KvTypeName(options.key_type), KvTypeName(options.value_type),
                              request.budget.has_value()};
  ESPALIER_ASSIGN_OR_RETURN(placement.policy, ChoosePolicy(request.policy, request.profile, request.plan, served));
  placement.profile = std::move(request.profile);
  if (placement.profile.profile != nullptr) {
    placement.profile.profile.reset();
    ReturnFreedMemoryToSystem();
  }
  ESPALIER_ASSIGN_OR_RETURN(placement.survey, SurveyMemory(std::move(model), options, workload));
  const Observation observation = {.memory = &placement.survey.memory,
                                   .workload = workload,
                                   .limit_bytes = placement.limit_bytes(),
                                   .process_bytes = placement.survey.base.process_bytes};
  ESPALIER_ASSIGN_OR_RETURN(Decision decision, placement.policy->Decide(observation));
  placement.plan = std::move(decision.plan);
  placement.footprint = decision.footprint;
  placement.loss = decision.loss;
  return placement;
}

std::string DescribeLoss(const std::optional<PredictedLoss>& loss) {
  return loss ? fmt::format("predicted loss {:.4f} nats per token ({})", loss->nats,
                            loss->measured ? "measured" : "estimated")
              : "predicted loss unknown";
}

void AnnounceProfile(const Placement& placement) {
  if (placement.profile.found_beside_model) {
    fmt::print(stderr, "espalier: using the profile beside the model: {} (--profile none: without)\n",
               Printable(placement.profile.path, 4096));
  }
}

void AnnouncePlacement(const Placement& placement) {
  AnnounceProfile(placement);
  const ProfileInUse& profile = placement.profile;
  const bool data_free = std::string_view(placement.policy->name()) == DataFreePolicy().name();
  if (placement.plan.dense() || (!data_free && profile.path.empty())) {
    return;
  }
  const std::string budget = placement.budget
                                 ? fmt::format(" to fit {} ({} at workload {})", placement.budget->ToText(),
                                               FormatBytes(placement.limit_bytes()), placement.survey.workload.ToText())
                                 : "";
  fmt::print(stderr, "espalier: {}{} of {} blocks dropped{}, {}{}{}: {}\n", data_free ? "warning: " : "",
             placement.plan.dropped().size(), placement.plan.n_block(), budget,
             data_free ? "chosen by their place alone, not by measurement"
                       : fmt::format("policy {}", placement.policy->name()),
             profile.path.empty() ? "" : ", ", profile.path.empty() ? "" : DescribeLoss(placement.loss),
             placement.plan.ToText());
}

}  // namespace espalier
