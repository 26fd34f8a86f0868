// The curves of a training, as a drawing that stands alone.
#pragma once

#include <string>

#include "control/rap_training.h"

namespace espalier {

// Three plots over episodes: return, TD error (logarithmic), gap to the best known.
std::string TrainingPlot(const RapTrainingReport& report, const std::string& title);

}  // namespace espalier
