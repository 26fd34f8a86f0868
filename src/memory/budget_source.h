// Where a server's memory limit comes from: an operator's word, control groups, the machine's free memory, a device.
//
// Every limit here is on managed + process bytes, which is what a budget means everywhere (memory/budget.h).
//
// FIXED POINT. A source that offers "what is free" would chase its own tail: we grow, less is free, the limit falls, we
// shrink. So each counts what we hold already as ours: own + available stays the same while we grow or shrink, and
// moves only when others do. "Own" is what the kernel counts (anonymous bytes). It exceeds our own books by freed heap
// that has not gone back and by stacks of threads; that excess is taken off the limit, for no block that is dropped
// gives it back.
//
// WHICH MEMORY. A budget is about one memory, the one that the model's blocks are in. For an engine on the CPU add the
// cgroup and the system; for one on a device with memory of its own add the device only, as pruning its blocks frees
// nothing on the host.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "memory/budget.h"
#include "memory/cgroup.h"

namespace espalier {

// What we hold now. The caller has it at hand or reads it cheaply (ReadOwnAnonymousBytes of memory/system_memory.h).
struct OwnMemory {
  uint64_t managed_bytes = 0;    // by our books
  uint64_t process_bytes = 0;    // anonymous memory of the process before the first block was loaded
  uint64_t anonymous_bytes = 0;  // anonymous memory of the process, as the kernel counts it now

  uint64_t used_bytes() const { return managed_bytes + process_bytes; }
  uint64_t excess_bytes() const { return anonymous_bytes > used_bytes() ? anonymous_bytes - used_bytes() : 0; }
};

// One source of a limit. Read on the engine's thread every 250 ms, so a reading takes less than 0.2 ms.
class BudgetSource {
 public:
  virtual ~BudgetSource() = default;
  // "operator", "cgroup", "system", "device".
  virtual std::string_view name() const = 0;
  // The limit on managed + process bytes, margin included; empty: no limit by this source.
  virtual Result<std::optional<uint64_t>> Limit(const OwnMemory& own) = 0;
  // The limit that holds even against an operator's word, because exceeding it ends the process.
  virtual Result<std::optional<uint64_t>> HardLimit(const OwnMemory& /*own*/) { return std::optional<uint64_t>(); }
  // What the latest reading could not understand although it gave a limit from the rest; ok if nothing.
  virtual Status problem() const { return Status::Ok(); }
};

// The margin of limits that follow others: what they do within a tick, the kernel's memory on our behalf, and what the
// books do not see. In percent of (own + available).
inline constexpr int kAutoPercent = 90;
// Of a cgroup's hard limit beside an operator's budget: only what the books do not see.
inline constexpr int kHardPercent = 98;

// `setting` of --memory-budget and of PUT /v1/espalier/budget: as Budget::Parse, and "auto" (empty).
Result<std::optional<Budget>> ParseBudgetSetting(std::string_view text);

// A budget that somebody has set; none while that is "auto". Thread rule: all from any thread.
class OperatorSource final : public BudgetSource {
 public:
  // `base`: what a percentage is a share of.
  OperatorSource(std::optional<Budget> setting, const BudgetBase& base) : base_(base), setting_(setting) {}

  std::string_view name() const override { return "operator"; }
  // As given, without a margin.
  Result<std::optional<uint64_t>> Limit(const OwnMemory& own) override;

  void Set(std::optional<Budget> setting);
  std::optional<Budget> setting() const;

 private:
  const BudgetBase base_;
  mutable std::mutex mutex_;
  std::optional<Budget> setting_;
};

// 90 % of (limit - what others hold), at the tightest of memory.max and memory.high of all groups around the process.
class CgroupSource final : public BudgetSource {
 public:
  explicit CgroupSource(CgroupOptions options = {}) : options_(std::move(options)) {}

  std::string_view name() const override { return "cgroup"; }
  Result<std::optional<uint64_t>> Limit(const OwnMemory& own) override;
  // 98 %, memory.high left out.
  Result<std::optional<uint64_t>> HardLimit(const OwnMemory& own) override;
  Status problem() const override { return problem_; }

 private:
  Result<std::optional<uint64_t>> Read(const OwnMemory& own, bool hard_only, int percent);

  const CgroupOptions options_;
  Status problem_;
};

// 90 % of (own + MemAvailable).
class SystemSource final : public BudgetSource {
 public:
  explicit SystemSource(std::string meminfo = "/proc/meminfo") : meminfo_(std::move(meminfo)) {}

  std::string_view name() const override { return "system"; }
  Result<std::optional<uint64_t>> Limit(const OwnMemory& own) override;

 private:
  const std::string meminfo_;
};

struct DeviceMemory {
  uint64_t free_bytes = 0;
  uint64_t total_bytes = 0;  // 0: unknown
};

// 90 % of (managed + free) on a device, and the process's own bytes, which are not on it.
class DeviceSource final : public BudgetSource {
 public:
  // `read` is called on the engine's thread (ggml_backend_dev_memory).
  explicit DeviceSource(std::function<Result<DeviceMemory>()> read) : read_(std::move(read)) {}

  std::string_view name() const override { return "device"; }
  Result<std::optional<uint64_t>> Limit(const OwnMemory& own) override;

 private:
  const std::function<Result<DeviceMemory>()> read_;
};

struct BudgetReading {
  uint64_t bytes = std::numeric_limits<uint64_t>::max();  // on managed + process bytes
  std::string source = "none";                            // whose limit that is; "none": nobody gave one
};

// All sources together.
//   auto:  the smallest limit of all sources.
//   fixed: the operator's limit, or the smallest hard limit of the others where that is lower. It may lie above what is
//          free: whoever names a number is taken at his word, up to where the kernel would kill.
// A source that cannot be read is passed over, its error kept: a broken file never stops serving.
//
// Thread rule: Add before anything else; Read from one thread; the rest from any.
class BudgetSources {
 public:
  BudgetSources(std::optional<Budget> setting, const BudgetBase& base) : operator_(setting, base) {}

  void Add(std::unique_ptr<BudgetSource> source) { sources_.push_back(std::move(source)); }

  BudgetReading Read(const OwnMemory& own);

  // Empty: auto. The next Read follows it.
  void SetOperator(std::optional<Budget> setting) { operator_.Set(setting); }
  std::optional<Budget> setting() const { return operator_.setting(); }

  // What the latest Read could not read or understand; ok if nothing. Only the first where there are several.
  Status last_error() const;

 private:
  OperatorSource operator_;
  std::vector<std::unique_ptr<BudgetSource>> sources_;  // without the operator's
  mutable std::mutex mutex_;                            // guards last_error_
  Status last_error_;
};

}  // namespace espalier
