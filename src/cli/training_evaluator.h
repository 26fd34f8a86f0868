// The evaluator that a training measures plans with: on the text that the profile is of.
#pragma once

#include <memory>

#include "base/status.h"
#include "cli/options.h"
#include "cli/text_option.h"
#include "eval/plan_evaluator.h"
#include "model/model.h"
#include "profile/profile_file.h"

namespace espalier {

// The text, cut into windows. Read before a profile is begun: a text that is not there leaves nothing behind.
Result<Windows> ReadTrainingText(const TextOption& text, const Model& model);

// Computes the dense predictions, with a progress bar. A profile that has no measured plans becomes one of this text.
// kInvalidArgument, naming both, if the profile's plans were measured on another text or in another way.
Result<std::unique_ptr<PlanEvaluator>> OpenTrainingEvaluator(const Windows& windows, const EngineFlags& engine,
                                                             const std::shared_ptr<const Model>& model,
                                                             ProfileStore* store);

}  // namespace espalier
