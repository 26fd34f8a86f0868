#include "cli/json.h"

#include <fmt/format.h>

#include <cstdio>

namespace espalier {

void AddPolicy(Json& report, const Placement& placement) {
  const ProfileInUse& profile = placement.profile;
  report["policy"] = placement.policy->name();
  report["profile"] = profile.path.empty() ? Json() : Json(profile.path);
  report["ablation"] = AblationName(profile.ablation);
  report["predicted_loss_nats"] = placement.loss ? Json(placement.loss->nats) : Json();
  report["predicted_loss_measured"] = placement.loss && placement.loss->measured;
}

void AddPlacement(Json& report, const Placement& placement) {
  report["budget_bytes"] = LimitJson(placement.limit_bytes());
  AddPolicy(report, placement);
  report["plan"] = ToJson(placement.plan);
}

void PrintJson(const Json& report) { fmt::print("{}\n", Dump(report, 2)); }

}  // namespace espalier
