#include "cli/interrupt.h"

#include <atomic>
#include <csignal>

namespace espalier {
namespace {

std::atomic<void (*)(void*)> stop_function = nullptr;
std::atomic<void*> stop_context = nullptr;

void OnSignal(int) {
  // The next signal, also the other one of the two, ends the program.
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  if (auto* stop = stop_function.load(); stop != nullptr) {
    stop(stop_context.load());
  }
}

}  // namespace

InterruptGuard::InterruptGuard(void (*stop)(void* context), void* context) {
  stop_context = context;
  stop_function = stop;
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  ::sigaction(SIGINT, &action, &old_interrupt_);
  ::sigaction(SIGTERM, &action, &old_terminate_);
}

InterruptGuard::~InterruptGuard() {
  ::sigaction(SIGINT, &old_interrupt_, nullptr);
  ::sigaction(SIGTERM, &old_terminate_, nullptr);
  stop_function = nullptr;
}

}  // namespace espalier
