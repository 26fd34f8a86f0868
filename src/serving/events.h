// What happened to memory while serving: kept in a ring, told to whoever listens.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "control/controller.h"

namespace espalier {

struct ServingEvent {
  enum class Kind {
    kLimit,       // the limit changed, by `source`
    kTransition,  // blocks left or came back: `transition`
    kTrim,        // KV of finished requests was given back
    kPreempt,     // a running request gave its KV up and waits to be computed again
    kReprefill,   // a running request is computed again, to use attention blocks that came back
    kBelowFloor,  // nobody can be served within limit and quality floor; requests wait
    kError,       // a part failed; `text` says which
  };
  Kind kind = Kind::kLimit;
  uint64_t number = 0;  // 1, 2, 3, ... in the order of the log
  double seconds = 0;   // since the loop began, by its clock
  int64_t unix_ms = 0;  // wall clock
  uint64_t limit_bytes = 0;
  uint64_t used_bytes = 0;  // managed + process, after it
  std::string source;       // of kLimit: "operator", "cgroup", "system", ...
  std::string text;         // one line for people
  std::optional<TransitionEvent> transition;
};
const char* EventKindName(ServingEvent::Kind kind);  // "limit", "transition", "trim", "preempt", ...

// The last `capacity` events. Thread rule: any thread.
class EventLog {
 public:
  explicit EventLog(size_t capacity = 1024) : capacity_(capacity) {}

  // Gives the event its number and keeps it; listeners are called before it returns, on the caller's thread.
  void Add(ServingEvent event);
  // Those with number > `after`, oldest first.
  std::vector<ServingEvent> Since(uint64_t after) const;
  uint64_t last_number() const;

  // `listener` must not block, nor call the log. Returns a handle for Unsubscribe, after which it is not called again.
  uint64_t Subscribe(std::function<void(const ServingEvent&)> listener);
  void Unsubscribe(uint64_t handle);

 private:
  const size_t capacity_;
  mutable std::mutex mutex_;  // guards everything below
  std::deque<ServingEvent> events_;
  uint64_t last_number_ = 0;
  uint64_t last_handle_ = 0;
  std::map<uint64_t, std::function<void(const ServingEvent&)>> listeners_;
};

}  // namespace espalier
