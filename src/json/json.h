// JSON forms of what reports and the API have in common. Keys carry units; byte figures are integers.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>

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
// null for UINT64_MAX, which stands for no limit.
Json LimitJson(uint64_t limit_bytes);

// As text; -1: on one line. What is not UTF-8 (a token may be half a character) is mended with U+FFFD.
std::string Dump(const Json& value, int indent = -1);

}  // namespace espalier
