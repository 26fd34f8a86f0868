#pragma once

#include "cli/command.h"

namespace espalier {

// espalier bench residency: `bench` is the command that it belongs to.
void AddBenchResidencyCommand(CLI::App& bench, std::vector<Command>& commands);

}  // namespace espalier
