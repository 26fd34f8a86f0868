// Plans as users hand them in: text, a file with text, or a file with JSON.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "model/plan.h"

namespace espalier {

// `text_or_file`: a file if there is one of that name or it looks like a path ('/' or ".json" in it), else the plan
// itself. A file whose first character is '{' is JSON: {"keep": {"a3": 0, "f9": 0.5}}; members beside "keep" are left
// to whoever wrote them.
Result<Plan> ReadPlan(const std::string& text_or_file, int n_layer);

// The JSON form.
Result<Plan> ParseJsonPlan(std::string_view json, int n_layer);

}  // namespace espalier
