// The loop's state for other threads: gathered by the loop's, read by any.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>

#include "runtime/engine.h"
#include "serving/delivery.h"
#include "serving/engine_loop.h"
#include "serving/kv_tenancy.h"
#include "serving/loop_inbox.h"
#include "serving/memory_keeper.h"
#include "serving/request_bounds.h"
#include "serving/token_rate.h"
#include "serving/waiting_queue.h"

namespace espalier {

// Thread rule: the first group from the loop's thread, the second from any. There is a snapshot from the first Publish
// on; before it, an empty one.
class LoopPublisher {
 public:
  using Time = LoopClock::Time;

  // Whose state it is. All must outlive the publisher.
  struct Parts {
    const Engine* engine = nullptr;
    const MemoryKeeper* keeper = nullptr;
    const KvTenancy* tenancy = nullptr;
    const WaitingQueue* waiting = nullptr;
    const Delivery* delivery = nullptr;
    const LoopInbox* inbox = nullptr;
    std::string policy;
    Time began;
  };
  explicit LoopPublisher(const Parts& parts) : parts_(parts) {}

  struct Steps {
    int64_t count = 0;  // since the loop began
    double last_ms = 0;
  };
  void Publish(const Steps& steps, Time now);
  // The snapshot is so old that it is time for another.
  bool due(Time now) const;

  // What was published last, but `refused`, which is of this moment.
  LoopSnapshot snapshot() const;
  RequestRoom room() const;

 private:
  void AddMemory(LoopSnapshot& s) const;
  void AddRequests(LoopSnapshot& s) const;

  const Parts parts_;
  TokenRate rate_;
  Time published_;
  mutable std::mutex mutex_;  // guards `snapshot_`, which only the loop's thread writes
  LoopSnapshot snapshot_;
};

}  // namespace espalier
