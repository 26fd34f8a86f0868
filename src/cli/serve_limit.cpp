#include "cli/serve_limit.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/process_memory.h"
#include "memory/system_memory.h"

namespace espalier {
namespace {

// After an event of pressure nothing grows for so long.
constexpr int64_t kPressureMs = 10000;
constexpr std::chrono::seconds kTrimPause(1);

int64_t NowMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void AddSources(BudgetSources& sources, const CgroupOptions& cgroup) {
  sources.Add(std::make_unique<CgroupSource>(cgroup));
  sources.Add(std::make_unique<SystemSource>());
}

// Anonymous memory beyond what is in use by the books.
uint64_t UnplannedBytes(uint64_t anonymous, uint64_t used_bytes) {
  // The books and the kernel differ by half a percent, and what a handful of requests hold comes and goes.
  const uint64_t slack = std::max(used_bytes / 100, 4 * kMiB);
  return anonymous > used_bytes + slack ? anonymous - used_bytes : 0;
}

}  // namespace

Result<std::optional<Budget>> ParseServedBudget(const BudgetOption& option) {
  return option.text.empty() ? std::optional<Budget>() : ParseBudgetSetting(option.text);
}

Result<Budget> InitialBudget(const std::optional<Budget>& setting, const CgroupOptions& cgroup) {
  if (setting) {
    return *setting;
  }
  BudgetSources sources(std::nullopt, {});
  AddSources(sources, cgroup);
  ESPALIER_ASSIGN_OR_RETURN(const uint64_t anonymous, ReadOwnAnonymousBytes());
  constexpr uint64_t kNoLimit = uint64_t{1} << 62;
  const BudgetReading reading = sources.Read({.process_bytes = anonymous, .anonymous_bytes = anonymous});
  return Budget::Bytes(std::min(reading.bytes, kNoLimit));
}

ServedLimit::ServedLimit(std::optional<Budget> setting, const BudgetBase& base, const CgroupOptions& cgroup)
    : process_bytes_(base.process_bytes), sources_(setting, base) {
  AddSources(sources_, cgroup);
}

LimitReading ServedLimit::Read(uint64_t used_bytes) {
  OwnMemory own;
  own.process_bytes = process_bytes_;
  own.managed_bytes = used_bytes - std::min(used_bytes, process_bytes_);
  auto anonymous = ReadOwnAnonymousBytes();
  const auto now = std::chrono::steady_clock::now();
  if (anonymous.ok() && UnplannedBytes(*anonymous, used_bytes) > 0 && now >= trim_again_) {
    trim_again_ = now + kTrimPause;
    ReturnFreedMemoryToSystem();  // what was freed is no longer held by anybody, but by the heap
    anonymous = ReadOwnAnonymousBytes();
  }
  own.anonymous_bytes = anonymous.ok() ? *anonymous : used_bytes;
  const BudgetReading reading = sources_.Read(own);
  LimitReading limit;
  limit.bytes = reading.bytes;
  limit.source = reading.source;
  limit.pressure = NowMs() < pressure_until_ms_.load(std::memory_order_relaxed);
  limit.deliberate = sources_.setting().has_value();
  limit.unplanned_bytes = UnplannedBytes(own.anonymous_bytes, used_bytes);
  return limit;
}

LimitReader ServedLimit::Reader() {
  return [this](uint64_t used_bytes) { return Read(used_bytes); };
}

void ServedLimit::WatchPressure(EngineLoop& loop, const char* watch, const char* write) {
  PressureOptions options;
  options.path = watch != nullptr ? watch : "";
  options.write = write != nullptr ? write : "";
  auto opened = PressureWatch::Open(options, [this, &loop] {
    pressure_until_ms_.store(NowMs() + kPressureMs, std::memory_order_relaxed);
    loop.Wake();
  });
  if (opened.ok()) {
    watch_ = *std::move(opened);
  } else if (watch != nullptr) {
    fmt::print(stderr, "espalier: warning: memory pressure is not watched: {}\n", opened.status().message());
  }
}

}  // namespace espalier
