// What reports have in common in JSON. Keys carry units; byte figures are integers.
#pragma once

#include <nlohmann/json.hpp>

#include <optional>

#include "cli/placement.h"
#include "control/controller.h"
#include "memory/account.h"
#include "model/footprint.h"
#include "model/model.h"
#include "model/plan.h"

namespace espalier {

using Json = nlohmann::ordered_json;

// {"text": "a3=0", "keep": {"a3": 0}}: `keep` is what --plan reads.
Json ToJson(const Plan& plan);
// weight_bytes, kv_bytes, compute_bytes, staging_bytes, managed_bytes (at rest), peak_bytes.
Json ToJson(const Footprint& footprint);
// managed_bytes and its parts, process_bytes, anonymous_bytes, measured_managed_bytes, reclaimable_bytes.
Json ToJson(const MemoryAccount& account);
Json ToJson(const Workload& workload);
// Among the rest predicted_loss_nats and predicted_loss_measured as AddPolicy has them, of the plan that is in force
// once nothing is pending.
Json ToJson(const TransitionEvent& event);
// path, name, architecture, quantization, layers.
Json ModelJson(const Model& model);
// policy, profile (its file; null without one), ablation, predicted_loss_nats (null where nothing is known),
// predicted_loss_measured (false: an estimate).
void AddPolicy(Json& report, const Placement& placement);
// budget_bytes (null without a budget), what AddPolicy adds, plan.
void AddPlacement(Json& report, const Placement& placement);
// null for kUnlimited.
Json LimitJson(uint64_t limit_bytes);

// The one object on stdout. Text that is not UTF-8 (a token may be half a character) is mended with U+FFFD.
void PrintJson(const Json& report);

}  // namespace espalier
