#include "control/scenarios.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include "model/quote.h"

namespace espalier {
namespace {

struct PaperWorkload {
  int n_sequences;
  int64_t tokens;
};
constexpr std::array<PaperWorkload, 10> kPaperWorkloads = {
    {{1, 4096}, {2, 2048}, {4, 2048}, {4, 4096}, {8, 1024}, {8, 2048}, {8, 4096}, {16, 512}, {16, 1024}, {16, 2048}}};
constexpr std::array<double, 4> kPercents = {90, 80, 70, 60};

std::vector<Budget> UsualBudgets() {
  std::vector<Budget> budgets;
  for (const double percent : kPercents) {
    budgets.push_back(Budget::Percent(percent));
  }
  return budgets;
}

// KV : weights that a total of `tokens` stands for: 0.05 at the smallest of the paper's, 4 at the largest, and a
// straight line between them on logarithmic axes.
double TargetRatio(int64_t tokens) {
  constexpr double kSmallest = 4096;
  constexpr double kLargest = 32768;
  constexpr double kLow = 0.05;
  constexpr double kHigh = 4;
  return kLow *
         std::pow(static_cast<double>(tokens) / kSmallest, std::log(kHigh / kLow) / std::log(kLargest / kSmallest));
}

std::vector<std::string_view> Fields(std::string_view line) {
  constexpr std::string_view kBlank = " \t\r";
  line = line.substr(0, line.find('#'));
  std::vector<std::string_view> fields;
  for (size_t at = line.find_first_not_of(kBlank); at != std::string_view::npos;) {
    const size_t end = std::min(line.find_first_of(kBlank, at), line.size());
    fields.push_back(line.substr(at, end - at));
    at = line.find_first_not_of(kBlank, end);
  }
  return fields;
}

Result<Scenario> ParseFields(const std::vector<std::string_view>& fields, const std::string& place) {
  Scenario scenario;
  const auto failed = [&](size_t field, const std::string& why) {
    return InvalidArgument(fmt::format("{}, field {}: {}", place, field + 1, why));
  };
  auto workload = Workload::Parse(fields[0]);
  if (!workload.ok()) {
    return failed(0, Printable(workload.status().message(), 400));
  }
  scenario.workload = *workload;
  for (size_t i = 1; i < fields.size(); ++i) {
    auto budget = Budget::Parse(fields[i]);
    if (!budget.ok()) {
      return failed(i, Printable(budget.status().message(), 400));
    }
    scenario.budgets.push_back(*budget);
  }
  if (scenario.budgets.empty()) {
    return failed(1, fmt::format("workload {} without a budget: expected at least one, such as 80%", fields[0]));
  }
  return scenario;
}

}  // namespace

std::vector<Scenario> PaperScenarios() {
  std::vector<Scenario> scenarios;
  for (const auto& [n, tokens] : kPaperWorkloads) {
    scenarios.push_back({Workload::Uniform(n, tokens), UsualBudgets()});
  }
  return scenarios;
}

std::vector<Scenario> ScaledScenarios(const MemoryModel& memory) {
  const double cells_of_weights = memory.cells_of_weights();
  std::vector<Scenario> scenarios;
  for (const auto& [n, tokens] : kPaperWorkloads) {
    const double cells = TargetRatio(n * tokens) * cells_of_weights;
    const int64_t scaled = std::max<int64_t>(1, std::llround(cells / n));
    scenarios.push_back({Workload::Uniform(n, scaled), UsualBudgets()});
  }
  return scenarios;
}

Result<std::vector<Scenario>> ParseScenarios(std::string_view text, const std::string& source) {
  constexpr size_t kMaxScenarios = 1000;
  std::vector<Scenario> scenarios;
  int number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const auto fields = Fields(text.substr(at, end - at));
    at = end + 1;
    ++number;
    if (fields.empty()) {
      continue;
    }
    const std::string place = fmt::format("{} line {}", source, number);
    if (scenarios.size() == kMaxScenarios) {
      return InvalidArgument(fmt::format("{}: expected at most {} scenarios", place, kMaxScenarios));
    }
    ESPALIER_ASSIGN_OR_RETURN(Scenario scenario, ParseFields(fields, place));
    scenarios.push_back(std::move(scenario));
  }
  if (scenarios.empty()) {
    return InvalidArgument(
        fmt::format("{}: no scenario; expected lines of a workload and budgets, such as '8x512 90% 80%'", source));
  }
  return scenarios;
}

std::vector<size_t> DistinctInCells(const std::vector<Scenario>& scenarios) {
  constexpr double kSame = 1.05;
  std::vector<size_t> order(scenarios.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto cells = [&](size_t i) { return static_cast<double>(scenarios[i].workload.kv_cells); };
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return cells(a) < cells(b); });
  std::vector<size_t> distinct;
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin + 1;
    while (end < order.size() && cells(order[end]) <= kSame * cells(order[begin])) {
      ++end;
    }
    distinct.push_back(*std::min_element(order.begin() + begin, order.begin() + end));
    begin = end;
  }
  return distinct;
}

double KvToWeights(const MemoryModel& memory, const Workload& workload) {
  return static_cast<double>(workload.kv_cells) / memory.cells_of_weights();
}

}  // namespace espalier
