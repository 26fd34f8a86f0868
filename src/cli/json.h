// JSON of reports that only commands make.
#pragma once

#include "cli/placement.h"
#include "json/json.h"

namespace espalier {

// policy, profile (its file; null without one), ablation, predicted_loss_nats (null where nothing is known),
// predicted_loss_measured (false: an estimate).
void AddPolicy(Json& report, const Placement& placement);
// budget_bytes (null without a budget), what AddPolicy adds, plan.
void AddPlacement(Json& report, const Placement& placement);

// The one object on stdout. Text that is not UTF-8 (a token may be half a character) is mended with U+FFFD.
void PrintJson(const Json& report);

}  // namespace espalier
