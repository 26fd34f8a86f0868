// One function for each command: adds it to `app`, with its options, and says what to call if it is the one.
#pragma once

#include <CLI/CLI.hpp>

#include <functional>
#include <memory>
#include <vector>

#include "base/status.h"

namespace espalier {

struct Command {
  CLI::App* app = nullptr;
  std::function<Status()> run;  // kAborted: stopped by the user, who need not be told
};

void AddRunCommand(CLI::App& app, std::vector<Command>& commands);
void AddInspectCommand(CLI::App& app, std::vector<Command>& commands);
void AddMemoryCommand(CLI::App& app, std::vector<Command>& commands);
void AddEvalCommand(CLI::App& app, std::vector<Command>& commands);
void AddRankCommand(CLI::App& app, std::vector<Command>& commands);
void AddCompareCommand(CLI::App& app, std::vector<Command>& commands);
void AddTrainCommand(CLI::App& app, std::vector<Command>& commands);
void AddExportCommand(CLI::App& app, std::vector<Command>& commands);
void AddCompressCommand(CLI::App& app, std::vector<Command>& commands);
void AddBenchCommand(CLI::App& app, std::vector<Command>& commands);
void AddGenerateModelCommand(CLI::App& app, std::vector<Command>& commands);
void AddServeCommand(CLI::App& app, std::vector<Command>& commands);
void AddReplayCommand(CLI::App& app, std::vector<Command>& commands);
void AddGenerateTraceCommand(CLI::App& app, std::vector<Command>& commands);

// Adds a command whose options live in an Options, with `bind(app, options)` to declare them and `run(options)` to
// carry them out.
template <class Options, class Bind, class Run>
CLI::App* AddCommand(CLI::App* app, std::vector<Command>& commands, Bind bind, Run run) {
  auto options = std::make_shared<Options>();
  bind(*app, *options);
  commands.push_back({app, [options, run] { return run(*options); }});
  return app;
}

}  // namespace espalier
