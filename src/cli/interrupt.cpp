#include "cli/interrupt.h"

#include <atomic>

namespace espalier {
namespace {

std::atomic<void (*)(void*)> stop_function = nullptr;
std::atomic<void*> stop_context = nullptr;

void OnSignal(int) {
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
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  ::sigaction(SIGINT, &action, &old_interrupt_);
  ::sigaction(SIGTERM, &action, &old_terminate_);
}

InterruptGuard::~InterruptGuard() {
  ::sigaction(SIGINT, &old_interrupt_, nullptr);
  ::sigaction(SIGTERM, &old_terminate_, nullptr);
  stop_function = nullptr;
}

}  // namespace espalier
