#pragma once

#include <CLI/CLI.hpp>

#include <vector>

#include "cli/command.h"

namespace espalier {

// Adds `stratnet` to `train`.
void AddTrainStratNet(CLI::App& train, std::vector<Command>& commands);

}  // namespace espalier
