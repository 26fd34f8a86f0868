#include "memory/budget_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "memory/system_memory.h"

namespace espalier {
namespace {

uint64_t SaturatingAdd(uint64_t a, uint64_t b) {
  return a > std::numeric_limits<uint64_t>::max() - b ? std::numeric_limits<uint64_t>::max() : a + b;
}

uint64_t SaturatingSubtract(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

// Whole bytes, and nothing overflows. REQUIRES: 0 <= percent <= 100
uint64_t PercentOf(uint64_t bytes, int percent) {
  const uint64_t share = static_cast<uint64_t>(percent);
  return bytes / 100 * share + bytes % 100 * share / 100;
}

// `share_bytes` is for all our anonymous memory; the limit is for what the books have of it.
std::optional<uint64_t> LimitOnUsed(uint64_t share_bytes, int percent, const OwnMemory& own) {
  return SaturatingSubtract(PercentOf(share_bytes, percent), own.excess_bytes());
}

}  // namespace

Result<std::optional<Budget>> ParseBudgetSetting(std::string_view text) {
  if (text == "auto") {
    return std::optional<Budget>();
  }
  auto budget = Budget::Parse(text);
  if (!budget.ok()) {
    return Status(budget.status().code(), fmt::format("{}, or auto", budget.status().message()));
  }
  return std::optional<Budget>(*budget);
}

Result<std::optional<uint64_t>> OperatorSource::Limit(const OwnMemory& /*own*/) {
  const std::optional<Budget> now = setting();
  return now.has_value() ? std::optional<uint64_t>(now->LimitBytes(base_)) : std::nullopt;
}

void OperatorSource::Set(std::optional<Budget> setting) {
  const std::lock_guard lock(mutex_);
  setting_ = setting;
}

std::optional<Budget> OperatorSource::setting() const {
  const std::lock_guard lock(mutex_);
  return setting_;
}

Result<std::optional<uint64_t>> CgroupSource::Limit(const OwnMemory& own) { return Read(own, false, kAutoPercent); }

Result<std::optional<uint64_t>> CgroupSource::HardLimit(const OwnMemory& own) { return Read(own, true, kHardPercent); }

Result<std::optional<uint64_t>> CgroupSource::Read(const OwnMemory& own, bool hard_only, int percent) {
  problem_ = Status::Ok();
  ESPALIER_ASSIGN_OR_RETURN(const CgroupReading reading, ReadCgroup(options_));
  const CgroupBound* const bound = TightestBound(reading, own.anonymous_bytes, hard_only);
  problem_ = reading.problem;
  return bound == nullptr ? std::optional<uint64_t>()
                          : LimitOnUsed(bound->ShareBytes(own.anonymous_bytes), percent, own);
}

Result<std::optional<uint64_t>> SystemSource::Limit(const OwnMemory& own) {
  ESPALIER_ASSIGN_OR_RETURN(const SystemMemory memory, ReadSystemMemory(meminfo_));
  return LimitOnUsed(SaturatingAdd(own.anonymous_bytes, memory.available_bytes), kAutoPercent, own);
}

Result<std::optional<uint64_t>> DeviceSource::Limit(const OwnMemory& own) {
  ESPALIER_ASSIGN_OR_RETURN(const DeviceMemory memory, read_());
  uint64_t share_bytes = SaturatingAdd(own.managed_bytes, memory.free_bytes);
  if (memory.total_bytes > 0) {
    // Parts of the managed bytes are on the host (buffers of inputs and outputs).
    share_bytes = std::min(share_bytes, memory.total_bytes);
  }
  return std::optional<uint64_t>(SaturatingAdd(PercentOf(share_bytes, kAutoPercent), own.process_bytes));
}

BudgetReading BudgetSources::Read(const OwnMemory& own) {
  BudgetReading reading;
  Status error;
  const auto take = [&](const BudgetSource& source, const Result<std::optional<uint64_t>>& limit) {
    if (limit.ok() && limit->has_value() && **limit < reading.bytes) {
      reading = {.bytes = **limit, .source = std::string(source.name())};
    }
    if (const Status problem = limit.ok() ? source.problem() : limit.status(); error.ok() && !problem.ok()) {
      error = Status(problem.code(), fmt::format("{}: {}", source.name(), problem.message()));
    }
  };
  // Once, for the setting may change while the sources are read.
  const Result<std::optional<uint64_t>> operators = operator_.Limit(own);
  const bool is_fixed = operators->has_value();
  take(operator_, operators);
  for (const std::unique_ptr<BudgetSource>& source : sources_) {
    take(*source, is_fixed ? source->HardLimit(own) : source->Limit(own));
  }
  const std::lock_guard lock(mutex_);
  last_error_ = std::move(error);
  return reading;
}

Status BudgetSources::last_error() const {
  const std::lock_guard lock(mutex_);
  return last_error_;
}

}  // namespace espalier
