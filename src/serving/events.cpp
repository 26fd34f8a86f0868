#include "serving/events.h"

#include <utility>

namespace espalier {

const char* EventKindName(ServingEvent::Kind kind) {
  switch (kind) {
    case ServingEvent::Kind::kLimit:
      return "limit";
    case ServingEvent::Kind::kTransition:
      return "transition";
    case ServingEvent::Kind::kTrim:
      return "trim";
    case ServingEvent::Kind::kPreempt:
      return "preempt";
    case ServingEvent::Kind::kReprefill:
      return "reprefill";
    case ServingEvent::Kind::kBelowFloor:
      return "below-floor";
    case ServingEvent::Kind::kError:
      return "error";
  }
  return "";
}

void EventLog::Add(ServingEvent event) {
  const std::lock_guard lock(mutex_);
  event.number = ++last_number_;
  events_.push_back(std::move(event));
  if (events_.size() > capacity_) {
    events_.pop_front();
  }
  for (const auto& [handle, listener] : listeners_) {
    listener(events_.back());
  }
}

std::vector<ServingEvent> EventLog::Since(uint64_t after) const {
  const std::lock_guard lock(mutex_);
  std::vector<ServingEvent> found;
  for (const ServingEvent& event : events_) {
    if (event.number > after) {
      found.push_back(event);
    }
  }
  return found;
}

uint64_t EventLog::last_number() const {
  const std::lock_guard lock(mutex_);
  return last_number_;
}

uint64_t EventLog::Subscribe(std::function<void(const ServingEvent&)> listener) {
  const std::lock_guard lock(mutex_);
  listeners_[++last_handle_] = std::move(listener);
  return last_handle_;
}

void EventLog::Unsubscribe(uint64_t handle) {
  const std::lock_guard lock(mutex_);
  listeners_.erase(handle);
}

}  // namespace espalier
