// Ctrl-C ends the work, not the program.
#pragma once

#include <signal.h>

#include <atomic>

namespace espalier {

// As long as this lives, the first SIGINT or SIGTERM calls `stop(context)`, in the signal handler: it may set atomics
// and little else. A second one ends the program at once. Thread rule: one at a time in the process.
class InterruptGuard {
 public:
  InterruptGuard(void (*stop)(void* context), void* context);
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

 private:
  struct sigaction old_interrupt_ = {};
  struct sigaction old_terminate_ = {};
};

// The guard that sets a flag, for work that looks at one.
class InterruptFlag {
 public:
  InterruptFlag() : guard_([](void* flag) { static_cast<std::atomic<bool>*>(flag)->store(true); }, &stop_) {}

  const std::atomic<bool>* get() const { return &stop_; }
  // As Ctrl-C would.
  void Stop() { stop_ = true; }

 private:
  std::atomic<bool> stop_ = false;
  InterruptGuard guard_;
};

}  // namespace espalier
