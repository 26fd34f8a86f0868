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

  // `free_slots`: of the loop, as TellQueue has it.
  explicit LoopInbox(const QueueBounds& bounds, int free_slots = 0) : bounds_(bounds), free_slots_(free_slots) {}

  // Gives the work its id. kBusy if the queue is full or the loop is stopping. Whom a slot is free for does not wait.
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
  // What waits in the loop's own queue, for the bounds, and how many more need not wait.
  void TellQueue(int requests, int64_t cells, int free_slots);
  // A request has ended, and will be told so before TellQueue is called again: its slot is free for whoever sends the
  // next one because of that. Unless somebody waits for it.
  void FreeSlot();
  // Stopped, and there is nothing left to do (`idle`: nor in the loop), or no time to do it.
  bool Drained(bool idle, Time now) const;
  // Until there is a message, for `longest` at most; when stopped and idle not at all.
  void Sleep(std::chrono::duration<double, std::milli> longest, bool idle, Time now);
  // While requests come one within `pause` of the other, for kMostPauses of them at most. At once if there is none.
  void Gather(std::chrono::duration<double, std::milli> pause);
  static constexpr int kMostPauses = 10;

 private:
  // One more is submitted: takes a free slot, or a place in the queue.
  void CountLocked(const Work& work);

  const QueueBounds bounds_;
  mutable std::mutex mutex_;  // guards everything below
  std::condition_variable wake_;
  Messages messages_;
  RequestId last_id_ = 0;
  int free_slots_ = 0;  // that no submitted request was counted for
  int in_queue_ = 0;    // waiting, and submitted without a free slot
  int64_t queue_cells_ = 0;
  int64_t refused_ = 0;
  bool stopping_ = false;
  Time stop_deadline_;
};

}  // namespace espalier
