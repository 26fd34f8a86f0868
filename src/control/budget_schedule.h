// A budget that changes while text is generated: the simplest budget source, for demonstrations and tests.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "memory/budget.h"

namespace espalier {

struct ScheduledBudget {
  int64_t at_token = 0;  // takes effect when so many tokens have been generated
  Budget budget;
};

// Parses "0:100%,48:60%,96:700MiB": TOKEN:BUDGET, tokens from 0 and rising. Fails with the item that is wrong.
Result<std::vector<ScheduledBudget>> ParseBudgetSchedule(std::string_view text);

}  // namespace espalier
