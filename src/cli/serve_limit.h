// The limit of a server: from --memory-budget, PUT /v1/espalier/budget, control groups, free memory and pressure.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>

#include "base/status.h"
#include "cli/options.h"
#include "memory/budget.h"
#include "memory/budget_source.h"
#include "memory/cgroup.h"
#include "memory/pressure.h"
#include "serving/engine_loop.h"

namespace espalier {

// --memory-budget of a server: "auto" is allowed, and the default. Empty: auto.
Result<std::optional<Budget>> ParseServedBudget(const BudgetOption& option);

// The budget to start with: the setting, or what the sources say now.
Result<Budget> InitialBudget(const std::optional<Budget>& setting, const CgroupOptions& cgroup);

// Thread rule: Reader()'s function on the loop's thread; sources() as BudgetSources says.
class ServedLimit {
 public:
  ServedLimit(std::optional<Budget> setting, const BudgetBase& base, const CgroupOptions& cgroup);

  // REQUIRES: this outlives the loop.
  LimitReader Reader();
  BudgetSources& sources() { return sources_; }
  // Watches for memory pressure as systemd's protocol has it (the two variables; may be null), or the whole system.
  // Where there is nothing to watch the server goes on without; a warning on stderr where something was asked for.
  void WatchPressure(EngineLoop& loop, const char* watch, const char* write);
  // No call to the loop comes afterwards. REQUIRED before the loop goes.
  void StopWatching() { watch_.reset(); }

 private:
  LimitReading Read(uint64_t used_bytes);

  const uint64_t process_bytes_;
  std::chrono::steady_clock::time_point trim_again_;
  BudgetSources sources_;
  std::atomic<int64_t> pressure_until_ms_ = 0;  // by the steady clock
  std::unique_ptr<PressureWatch> watch_;
};

}  // namespace espalier
