#include "cli/cli.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/process_memory.h"
#include "cli/command.h"
#include "cli/standard_streams.h"
#include "model/quote.h"

namespace espalier {
namespace {

constexpr int kExitError = 1;
constexpr int kExitUsage = 2;
constexpr int kExitInterrupted = 130;
constexpr const char* kOutputLost = "standard output: cannot write";

constexpr const char* kAbout =
    "Espalier fits a GGUF language model to a memory budget while it runs.\n\n"
    "Examples:\n"
    "  espalier run -p \"The old house stood\" -n 64\n"
    "  espalier run reference -p \"The old house stood\" --budget-schedule 0:100%,48:60%,96:100%\n"
    "  espalier memory model.gguf --workload 8x4096 --memory-budget 6GiB --json\n";

// Flags of more than one letter behind a single dash, as llama.cpp has them; CLI11 knows one-letter flags only.
constexpr std::array<std::pair<std::string_view, std::string_view>, 10> kLongFlags = {{{"-ub", "--ubatch-size"},
                                                                                       {"-ctk", "--cache-type-k"},
                                                                                       {"-ctv", "--cache-type-v"},
                                                                                       {"-np", "--parallel"},
                                                                                       {"-ngl", "--gpu-layers"},
                                                                                       {"-fa", "--flash-attn"},
                                                                                       {"-cb", "--cont-batching"},
                                                                                       {"-tb", "--threads-batch"},
                                                                                       {"-hf", "--hf-repo"},
                                                                                       {"-hfr", "--hf-repo"}}};

std::vector<std::string> Arguments(int argc, char** argv) {
  std::vector<std::string> arguments;
  for (int i = 1; i < argc; ++i) {
    const auto* found =
        std::find_if(kLongFlags.begin(), kLongFlags.end(), [&](const auto& flag) { return flag.first == argv[i]; });
    arguments.emplace_back(found != kLongFlags.end() ? found->second : argv[i]);
  }
  std::reverse(arguments.begin(), arguments.end());  // the order in which CLI11 wants a vector
  return arguments;
}

int Fail(int code, const std::string& message) {
  // One line, whatever was quoted in it.
  fmt::print(stderr, "espalier: {}\n", Printable(message, 4096));
  return code;
}

// The command that was named last; `app` where there was none.
const CLI::App& Named(const CLI::App& app) {
  const auto below = app.get_subcommands();
  return below.empty() ? app : Named(*below.front());
}

// "espalier train": what --help goes behind.
std::string CommandLineOf(const CLI::App& command) {
  const CLI::App* above = command.get_parent();
  return above == nullptr ? command.get_name() : CommandLineOf(*above) + " " + command.get_name();
}

int FailUsage(const CLI::App& command, const std::string& message) {
  return Fail(kExitUsage, fmt::format("{} ({} --help tells more)", message, CommandLineOf(command)));
}

int FailWithoutCommand(const CLI::App& above, const std::string& found) {
  std::vector<std::string> names;
  for (const CLI::App* one : above.get_subcommands(nullptr)) {
    names.push_back(one->get_name());
  }
  return FailUsage(above, fmt::format("command{}: expected one of {}, found {}",
                                      above.get_parent() == nullptr ? "" : " of " + above.get_name(),
                                      fmt::join(names, ", "), found));
}

int FailToParse(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App& command = Named(app);
  if (dynamic_cast<const CLI::ExtrasError*>(&error) == nullptr) {
    return FailUsage(command, error.what());
  }
  const std::vector<std::string> unexpected = app.remaining(true);
  const auto is_positional = [](const CLI::Option* option) { return option->get_positional(); };
  const bool only_commands = !command.get_subcommands(nullptr).empty() && command.get_options(is_positional).empty();
  if (only_commands) {
    return FailWithoutCommand(command, Quote(unexpected.front()));
  }
  // CLI11's own message has them in the opposite order.
  return FailUsage(command, fmt::format("not expected: {}", Quote(fmt::format("{}", fmt::join(unexpected, " ")))));
}

// CLI11 itself would print to std::cout, which nobody asks afterwards whether it could be written.
int PrintHelp(const CLI::App& app, const CLI::Success& help_or_version) {
  std::ostringstream text;
  const int code = app.exit(help_or_version, text, text);
  fmt::print("{}", text.str());
  return IsOutputLost() ? Fail(kExitError, kOutputLost) : code;
}

}  // namespace

int RunEspalier(int argc, char** argv) {
  ReturnFreedMemoryToSystem();
  KeepStreamsFromFailing();
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error to tell, like a full disk
  CLI::App app(kAbout, "espalier");
  app.set_version_flag("--version", fmt::format("espalier {} (ggml {})", ESPALIER_VERSION, ESPALIER_GGML_VERSION));
  std::vector<Command> commands;
  AddRunCommand(app, commands);
  AddInspectCommand(app, commands);
  AddMemoryCommand(app, commands);
  AddEvalCommand(app, commands);
  AddRankCommand(app, commands);
  AddCompareCommand(app, commands);
  AddTrainCommand(app, commands);
  AddExportCommand(app, commands);
  AddCompressCommand(app, commands);
  AddBenchCommand(app, commands);
  AddServeCommand(app, commands);
  AddReplayCommand(app, commands);
  AddGenerateModelCommand(app, commands);
  AddGenerateTraceCommand(app, commands);
  try {
    app.parse(Arguments(argc, argv));
  } catch (const CLI::Success& help_or_version) {
    return PrintHelp(app, help_or_version);
  } catch (const CLI::ParseError& error) {
    return FailToParse(app, error);
  }
  // Commands of commands come behind their parents, which count as parsed too.
  const auto command =
      std::find_if(commands.rbegin(), commands.rend(), [](const Command& c) { return c.app->parsed(); });
  if (command == commands.rend()) {
    return FailWithoutCommand(Named(app), "none");
  }
  const Status status = command->run();
  if (!status.ok()) {
    return status.code() == ErrorCode::kAborted ? kExitInterrupted : Fail(kExitError, status.message());
  }
  if (IsOutputLost()) {
    return Fail(kExitError, kOutputLost);
  }
  return 0;
}

}  // namespace espalier
