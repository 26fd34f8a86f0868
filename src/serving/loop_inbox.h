// What other threads ask of the engine loop, and where its thread sleeps until they do.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "base/status.h"
#include "serving/waiting_queue.h"
#include "serving/work.h"

namespace espalier {

// Thread rule: the first group from any thread, the second from the loop's.
class LoopInbox {
 public:
  using Time = Work::Time;

  explicit LoopInbox(const QueueBounds& bounds) : bounds_(bounds) {}

  // Gives the work its id. kBusy if the queue is full or the loop is stopping.
  Result<RequestId> Put(std::unique_ptr<Work> work);
  void Cancel(RequestId id);
  void Wake();
  // No more work from now on. The earliest deadline of several counts.
  void Stop(Time deadline);
  // Counts one that was refused before it got here.
  void CountRefused();
  int64_t refused() const;

  struct Messages {
    std::vector<std::unique_ptr<Work>> submitted;
    std::vector<RequestId> cancelled;
    bool look = false;  // somebody called Wake or Stop
  };
  Messages Take();
  // What waits in the loop's own queue, for the bounds.
  void TellQueue(int requests, int64_t cells);
  // Stopped, and there is nothing left to do (`idle`: nor in the loop), or no time to do it.
  bool Drained(bool idle, Time now) const;
  // Until there is a message, for `longest` at most; when stopped and idle not at all.
  void Sleep(std::chrono::duration<double, std::milli> longest, bool idle, Time now);
  // While requests come one within `pause` of the other, for kMostPauses of them at most. At once if there is none.
  void Gather(std::chrono::duration<double, std::milli> pause);
  static constexpr int kMostPauses = 10;

 private:
  const QueueBounds bounds_;
  mutable std::mutex mutex_;  // guards everything below
  std::condition_variable wake_;
  Messages messages_;
  RequestId last_id_ = 0;
  int in_queue_ = 0;  // waiting, and submitted but not taken yet
  int64_t queue_cells_ = 0;
  int64_t refused_ = 0;
  bool stopping_ = false;
  Time stop_deadline_;
};

}  // namespace espalier
