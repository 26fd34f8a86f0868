// Ctrl-C ends the work, not the program.
#pragma once

#include <signal.h>

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

}  // namespace espalier
