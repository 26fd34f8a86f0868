// What commands that write plans as GGUF have in common.
#pragma once

#include <atomic>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "cli/policy_choice.h"
#include "export/gguf_export.h"
#include "model/model.h"
#include "model/plan.h"

namespace espalier {

// Where a file comes from, as its keys "espalier.*" say it, and the means that its dropped blocks add. `loss`: nats per
// token, where the plan was measured. `more`: further keys.
Result<ExportOptions> ExportOptionsFor(const Model& model, const ProfileInUse& use, const Plan& plan,
                                       std::optional<double> loss,
                                       std::vector<std::pair<std::string, std::string>> more = {});

// Writes the file with a progress bar. kAborted once `*stop` is true, kInvalidArgument where `path` is that of the
// profile in use.
Status WriteExport(const GgufExport& prepared, const std::string& path, const ProfileInUse& use,
                   const std::atomic<bool>* stop);

}  // namespace espalier
