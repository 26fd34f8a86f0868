// espalier generate-trace: a load trace from a seed, to replay.
#include <fmt/format.h>

#include <charconv>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "base/file.h"
#include "cli/command.h"
#include "cli/json.h"
#include "cli/number_check.h"
#include "cli/options.h"
#include "cli/trace_file.h"
#include "model/quote.h"
#include "serving/trace_generator.h"

namespace espalier {
namespace {

struct GenerateTraceFlags {
  TraceOptions trace;
  std::string arrivals = ArrivalKindName(ArrivalKind::kSteady);
  std::string budget = BudgetKindName(BudgetKind::kConstant);
  std::string prompt_tokens = "32-256";
  std::string max_tokens = "16-128";
  std::string budget_range = "60-100";
  std::string output;
  bool json = false;
};

template <class Kinds, class Name>
std::vector<std::string> NamesOf(const Kinds& kinds, Name name) {
  std::vector<std::string> names;
  for (const auto kind : kinds) {
    names.emplace_back(name(kind));
  }
  return names;
}

// REQUIRES: `name` is one of the kinds': CLI11 has looked.
template <class Kinds, class Name>
auto KindOf(const Kinds& kinds, Name name_of, const std::string& name) {
  auto found = kinds.front();
  for (const auto kind : kinds) {
    found = name == name_of(kind) ? kind : found;
  }
  return found;
}

void BindGenerateTrace(CLI::App& app, GenerateTraceFlags& o) {
  TraceOptions& t = o.trace;
  const auto add = [&app](const char* name, auto& value, const char* text) {
    return app.add_option(name, value, text)->capture_default_str();
  };
  app.add_option("-o,--output", o.output, "File to write")->required();
  add("--arrivals", o.arrivals, "When requests come: none, steady, diurnal, bursty")
      ->check(CLI::IsMember(NamesOf(kArrivalKinds, ArrivalKindName)));
  add("--budget", o.budget, "What memory does: none, constant, sawtooth, memory-hog, random-walk, trembling")
      ->check(CLI::IsMember(NamesOf(kBudgetKinds, BudgetKindName)));
  add("--seconds", t.seconds, "Length of the trace")->check(Finite());
  add("--rate", t.rate, "Requests per second, on average")->check(Finite());
  add("--arrival-period", t.arrival_period,
      "Seconds of a day (diurnal), or of a burst and the quiet around it; 0: a quarter of the trace, or 20")
      ->check(Finite());
  add("--prompt-tokens", o.prompt_tokens, "Shortest and longest prompt");
  add("--max-tokens", o.max_tokens, "Shortest and longest answer");
  add("--shared-prefix", t.shared_prefix_tokens, "Tokens that all prompts begin with; 0: none");
  add("--budget-range", o.budget_range, "Lowest and highest budget, in percent of what the dense model needs");
  add("--budget-period", t.budget_period,
      "Seconds of a tooth, of a hog's coming and going, or of eight steps; 0: a quarter of the trace")
      ->check(Finite());
  add("--seed", t.seed, "The same options and seed give the same trace");
  add("--name", t.name, "Name of the trace; default: what is in it");
  AddJsonFlag(app, o.json);
}

// "32-256", or "64" for both ends.
template <class Number>
Status ParseRange(const char* flag, std::string_view text, Number* low, Number* high) {
  const size_t dash = text.find('-');
  const std::string_view first = text.substr(0, dash);
  const std::string_view second = dash == std::string_view::npos ? first : text.substr(dash + 1);
  for (const auto& [part, number] : {std::pair{first, low}, std::pair{second, high}}) {
    const auto [rest, error] = std::from_chars(part.data(), part.data() + part.size(), *number);
    if (error != std::errc() || rest != part.data() + part.size()) {
      return InvalidArgument(fmt::format("{} {}: expected LOW-HIGH, such as 32-256", flag, Quote(text)));
    }
  }
  return Status::Ok();
}

Status GenerateTraceFile(const GenerateTraceFlags& o) {
  TraceOptions options = o.trace;
  options.arrivals = KindOf(kArrivalKinds, ArrivalKindName, o.arrivals);
  options.budget = KindOf(kBudgetKinds, BudgetKindName, o.budget);
  ESPALIER_RETURN_IF_ERROR(
      ParseRange("--prompt-tokens", o.prompt_tokens, &options.prompt_tokens.low, &options.prompt_tokens.high));
  ESPALIER_RETURN_IF_ERROR(ParseRange("--max-tokens", o.max_tokens, &options.max_tokens.low, &options.max_tokens.high));
  ESPALIER_RETURN_IF_ERROR(ParseRange("--budget-range", o.budget_range, &options.low_percent, &options.high_percent));
  ESPALIER_ASSIGN_OR_RETURN(const LoadTrace trace, GenerateTrace(options));
  const std::string text = TraceFileText(trace);
  ESPALIER_RETURN_IF_ERROR(WriteWholeFile(o.output, text));
  int64_t prompt_tokens = 0;
  int64_t max_tokens = 0;
  for (const Arrival& arrival : trace.arrivals) {
    prompt_tokens += arrival.prompt_tokens;
    max_tokens += arrival.max_tokens;
  }
  if (o.json) {
    PrintJson({{"path", o.output},
               {"name", trace.name},
               {"seed", trace.seed},
               {"duration_seconds", trace.duration_seconds},
               {"arrivals", trace.arrivals.size()},
               {"budgets", trace.budgets.size()},
               {"prompt_tokens", prompt_tokens},
               {"max_tokens", max_tokens},
               {"file_bytes", text.size()}});
  } else {
    fmt::print("{}: {}; {} requests with {} prompt tokens, {} to generate at most, and {} budgets in {} s\n",
               Printable(o.output, 4096), Printable(trace.name, 200), trace.arrivals.size(), prompt_tokens, max_tokens,
               trace.budgets.size(), trace.duration_seconds);
  }
  return Status::Ok();
}

}  // namespace

void AddGenerateTraceCommand(CLI::App& app, std::vector<Command>& commands) {
  auto* generate = app.add_subcommand("generate-trace", "Write a load trace from a seed, for espalier replay");
  generate->footer(
      "Examples:\n"
      "  espalier generate-trace --arrivals bursty --budget sawtooth --seconds 600 --rate 2 --seed 1 -o trace.jsonl\n"
      "  espalier generate-trace --arrivals diurnal --budget memory-hog --budget-range 50-90 -o hog.jsonl\n"
      "  espalier generate-trace --arrivals steady --rate 1 --prompt-tokens 32-256 --max-tokens 16-128 \\\n"
      "    --budget trembling --budget-range 75-75 --budget-period 8 -o trembling.jsonl\n");
  AddCommand<GenerateTraceFlags>(generate, commands, BindGenerateTrace, GenerateTraceFile);
}

}  // namespace espalier
