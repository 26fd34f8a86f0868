// Time and memory as a replay has them: seams that the engine loop is given in place of the machine's.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include "serving/engine_loop.h"

namespace espalier {

// A clock that can wait. Thread rule: WaitUntil from the replay's thread, Now from any.
class ReplayClock : public LoopClock {
 public:
  // Returns when Now() is `time` or later.
  virtual void WaitUntil(Time time) = 0;
  // Of the time since the clock began, what was passed over instead of waited for.
  virtual double skipped_seconds() const { return 0; }
};

// Waiting is sleeping.
class RealClock final : public ReplayClock {
 public:
  void WaitUntil(Time time) override { std::this_thread::sleep_until(time); }
};

// Waiting takes no time: the clock jumps. What is computed takes as long as it takes, so latencies are those of the
// machine, and ten minutes in which nobody comes are over at once.
class SkippingClock final : public ReplayClock {
 public:
  Time Now() const override { return LoopClock::Now() + std::chrono::nanoseconds(skipped_.load()); }
  void WaitUntil(Time time) override {
    const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(time - Now());
    skipped_ += std::max<int64_t>(left.count(), 0);
  }
  double skipped_seconds() const override { return static_cast<double>(skipped_.load()) * 1e-9; }

 private:
  std::atomic<int64_t> skipped_ = 0;
};

// The limit as the trace says it. Thread rule: any thread.
class TraceLimit {
 public:
  explicit TraceLimit(uint64_t bytes) : bytes_(bytes) {}
  void Set(uint64_t bytes) { bytes_ = bytes; }
  // For EngineLoop::Parts. Refers to this, which must outlive the loop.
  LimitReader Reader() const {
    return [this](uint64_t) {
      LimitReading reading;
      reading.bytes = bytes_;
      reading.source = "trace";
      return reading;
    };
  }

 private:
  std::atomic<uint64_t> bytes_;
};

}  // namespace espalier
