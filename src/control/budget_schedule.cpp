#include "control/budget_schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace espalier {
namespace {

Result<ScheduledBudget> ParseItem(std::string_view item) {
  const size_t colon = item.find(':');
  int64_t token = -1;
  if (colon != std::string_view::npos) {
    const char* const end = item.data() + colon;
    const auto [rest, error] = std::from_chars(item.data(), end, token);
    if (error != std::errc() || rest != end) {
      token = -1;
    }
  }
  if (token < 0) {
    return InvalidArgument(
        fmt::format("budget schedule item '{}': expected TOKEN:BUDGET, such as 48:60%", item.substr(0, 64)));
  }
  ESPALIER_ASSIGN_OR_RETURN(const Budget budget, Budget::Parse(item.substr(colon + 1)));
  return ScheduledBudget{token, budget};
}

}  // namespace

Result<std::vector<ScheduledBudget>> ParseBudgetSchedule(std::string_view text) {
  std::vector<ScheduledBudget> schedule;
  size_t at = 0;
  while (at <= text.size()) {
    const size_t end = std::min(text.find(',', at), text.size());
    ESPALIER_ASSIGN_OR_RETURN(const ScheduledBudget item, ParseItem(text.substr(at, end - at)));
    if (!schedule.empty() && item.at_token <= schedule.back().at_token) {
      return InvalidArgument(fmt::format("budget schedule '{}': expected rising token numbers, found {} after {}",
                                         text.substr(0, 64), item.at_token, schedule.back().at_token));
    }
    schedule.push_back(item);
    at = end + 1;
  }
  return schedule;
}

}  // namespace espalier
