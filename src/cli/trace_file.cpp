#include "cli/trace_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/bytes.h"
#include "base/file.h"
#include "json/json_value.h"
#include "model/quote.h"

namespace espalier {
namespace {

using JsonValue = nlohmann::json;

constexpr size_t kMaxLineBytes = 4 * kKiB;
constexpr uint64_t kMaxFileBytes = 256 * kMiB;
constexpr std::string_view kFormat = "espalier-load-trace";
constexpr int64_t kVersion = 1;

Status Expected(std::string_view field, std::string_view what, const JsonValue& found) {
  return InvalidArgument(fmt::format("field \"{}\": expected {}, found {}", field, what, ShowValue(found, 48)));
}

// The fields that `object` may have are `known`, the first `n_required` of which it must have.
Status CheckFields(const JsonValue& object, std::initializer_list<const char*> known, size_t n_required) {
  for (const auto& member : object.items()) {
    if (std::find(known.begin(), known.end(), member.key()) == known.end()) {
      return InvalidArgument(fmt::format("field \"{}\" is unknown here; there are: {}", Printable(member.key(), 48),
                                         fmt::join(known, ", ")));
    }
  }
  for (const char* const* field = known.begin(); field != known.begin() + n_required; ++field) {
    if (!object.contains(*field)) {
      return InvalidArgument(fmt::format("field \"{}\": expected a value, found none", *field));
    }
  }
  return Status::Ok();
}

Result<double> ReadSeconds(const JsonValue& object, const char* field) {
  const JsonValue& value = object[field];
  return value.is_number() ? Result<double>(value.get<double>()) : Expected(field, "a number of seconds", value);
}

// Out of range here is what 64 bits cannot hold; the trace's own bounds are CheckArrival's.
Result<int64_t> ReadTokens(const JsonValue& object, const char* field) {
  const JsonValue& value = object[field];
  const bool whole =
      value.is_number_unsigned() ? value.get<uint64_t>() <= uint64_t{INT64_MAX} : value.is_number_integer();
  return whole ? Result<int64_t>(value.get<int64_t>()) : Expected(field, "a whole number of tokens", value);
}

Result<uint64_t> ReadSeed(const JsonValue& object, const char* field) {
  const JsonValue& value = object[field];
  return value.is_number_unsigned() ? Result<uint64_t>(value.get<uint64_t>())
                                    : Expected(field, "a whole number from 0 up", value);
}

Result<Budget> ReadBudget(const JsonValue& object) {
  const JsonValue& value = object["memory_budget"];
  if (value.is_number_unsigned() && value.get<uint64_t>() > 0 && value.get<uint64_t>() <= uint64_t{INT64_MAX}) {
    return Budget::Bytes(value.get<uint64_t>());
  }
  if (!value.is_string()) {
    return Expected("memory_budget", R"(bytes from 1 up, or a text as "60%" or "700MiB")", value);
  }
  auto budget = Budget::Parse(value.get_ref<const std::string&>());
  return budget.ok() ? std::move(budget)
                     : Result<Budget>(Status(budget.status().code(),
                                             fmt::format("field \"memory_budget\": {}", budget.status().message())));
}

Result<LoadTrace> ReadHead(const JsonValue& object) {
  if (const auto format = object.find("trace"); format == object.end()) {
    return InvalidArgument(fmt::format("expected a first line with \"trace\": \"{}\", found none", kFormat));
  } else if (*format != kFormat) {
    return Expected("trace", fmt::format("\"{}\"", kFormat), *format);
  }
  if (const auto version = object.find("version"); version != object.end() && *version != kVersion) {
    return Unsupported(fmt::format("field \"version\": expected {}, found {}", kVersion, ShowValue(*version, 48)));
  }
  ESPALIER_RETURN_IF_ERROR(CheckFields(object, {"trace", "version", "duration_seconds", "name", "seed"}, 3));
  LoadTrace trace;
  if (object.contains("name")) {
    const JsonValue& name = object["name"];
    if (!name.is_string() || name.get_ref<const std::string&>().size() > kMaxTraceNameBytes) {
      return Expected("name", fmt::format("a text of at most {} bytes", kMaxTraceNameBytes), name);
    }
    trace.name = name.get<std::string>();
  }
  if (object.contains("seed")) {
    ESPALIER_ASSIGN_OR_RETURN(trace.seed, ReadSeed(object, "seed"));
  }
  ESPALIER_ASSIGN_OR_RETURN(trace.duration_seconds, ReadSeconds(object, "duration_seconds"));
  ESPALIER_RETURN_IF_ERROR(CheckDuration(trace.duration_seconds));
  return trace;
}

Status ReadEvent(const JsonValue& object, LoadTrace* trace) {
  if (object.contains("memory_budget")) {
    ESPALIER_RETURN_IF_ERROR(CheckFields(object, {"at", "memory_budget"}, 2));
    BudgetStep step;
    ESPALIER_ASSIGN_OR_RETURN(step.seconds, ReadSeconds(object, "at"));
    ESPALIER_RETURN_IF_ERROR(CheckMoment(step.seconds, trace->duration_seconds));
    ESPALIER_ASSIGN_OR_RETURN(step.budget, ReadBudget(object));
    trace->budgets.push_back(step);
    return Status::Ok();
  }
  ESPALIER_RETURN_IF_ERROR(
      CheckFields(object, {"at", "prompt_tokens", "max_tokens", "prompt_seed", "shared_prefix_tokens"}, 3));
  Arrival arrival;
  ESPALIER_ASSIGN_OR_RETURN(arrival.seconds, ReadSeconds(object, "at"));
  ESPALIER_ASSIGN_OR_RETURN(arrival.prompt_tokens, ReadTokens(object, "prompt_tokens"));
  ESPALIER_ASSIGN_OR_RETURN(arrival.max_tokens, ReadTokens(object, "max_tokens"));
  arrival.prompt_seed = trace->arrivals.size();
  if (object.contains("prompt_seed")) {
    ESPALIER_ASSIGN_OR_RETURN(arrival.prompt_seed, ReadSeed(object, "prompt_seed"));
  }
  if (object.contains("shared_prefix_tokens")) {
    ESPALIER_ASSIGN_OR_RETURN(arrival.shared_prefix_tokens, ReadTokens(object, "shared_prefix_tokens"));
  }
  ESPALIER_RETURN_IF_ERROR(CheckArrival(arrival, trace->duration_seconds));
  trace->arrivals.push_back(arrival);
  return Status::Ok();
}

Status ReadLine(std::string_view line, std::optional<LoadTrace>* trace) {
  ESPALIER_ASSIGN_OR_RETURN(const JsonValue object, ParseObjectLine(line, kMaxLineBytes));
  if (!*trace) {
    ESPALIER_ASSIGN_OR_RETURN(*trace, ReadHead(object));
    return Status::Ok();
  }
  ESPALIER_RETURN_IF_ERROR(ReadEvent(object, &**trace));
  return std::max((*trace)->arrivals.size(), (*trace)->budgets.size()) <= kMaxTraceItems
             ? Status::Ok()
             : InvalidArgument(
                   fmt::format("expected at most {} arrivals and as many budgets, found more", kMaxTraceItems));
}

}  // namespace

std::string ExactText(const Budget& budget) {
  return budget.is_percent() ? fmt::format("{}%", budget.percent()) : fmt::format("{}", budget.LimitBytes({}));
}

Result<LoadTrace> ParseTraceFile(std::string_view text, const std::string& path) {
  std::optional<LoadTrace> trace;
  for (int64_t number = 1; !text.empty(); ++number) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) {
      continue;
    }
    if (const Status status = ReadLine(line, &trace); !status.ok()) {
      return Status(status.code(), fmt::format("{}, line {}: {}", Quote(path), number, status.message()));
    }
  }
  if (!trace) {
    return InvalidArgument(fmt::format("load trace {}: no lines in it", Quote(path)));
  }
  SortTrace(&*trace);
  return std::move(*trace);
}

Result<LoadTrace> ReadTraceFile(const std::string& path) {
  ESPALIER_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(path, kMaxFileBytes));
  return ParseTraceFile(text, path);
}

std::string TraceFileText(const LoadTrace& trace) {
  using Line = nlohmann::ordered_json;
  std::string text;
  const auto add = [&text](const Line& line) {
    text += line.dump(-1, ' ', false, Line::error_handler_t::replace) + "\n";
  };
  add({{"trace", kFormat},
       {"version", kVersion},
       {"name", trace.name},
       {"seed", trace.seed},
       {"duration_seconds", trace.duration_seconds}});
  auto budget = trace.budgets.begin();
  const auto add_budgets_until = [&](double seconds) {
    for (; budget != trace.budgets.end() && budget->seconds <= seconds; ++budget) {
      Line line = {{"at", budget->seconds}, {"memory_budget", budget->budget.LimitBytes({})}};
      if (budget->budget.is_percent()) {
        line["memory_budget"] = ExactText(budget->budget);
      }
      add(line);
    }
  };
  for (const Arrival& arrival : trace.arrivals) {
    add_budgets_until(arrival.seconds);
    Line line = {{"at", arrival.seconds},
                 {"prompt_tokens", arrival.prompt_tokens},
                 {"max_tokens", arrival.max_tokens},
                 {"prompt_seed", arrival.prompt_seed}};
    if (arrival.shared_prefix_tokens > 0) {
      line["shared_prefix_tokens"] = arrival.shared_prefix_tokens;
    }
    add(line);
  }
  add_budgets_until(trace.duration_seconds);
  return text;
}

}  // namespace espalier
