#include "serving/loop_inbox.h"

#include <algorithm>
#include <utility>

namespace espalier {

Result<RequestId> LoopInbox::Put(std::unique_ptr<Work> work) {
  const std::lock_guard lock(mutex_);
  const Status status = stopping_         ? Busy("the server is shutting down")
                        : free_slots_ > 0 ? Status::Ok()
                                          : CheckQueueBounds(bounds_, in_queue_, queue_cells_, work->cells());
  if (!status.ok()) {
    ++refused_;
    return status;
  }
  work->id = ++last_id_;
  CountLocked(*work);
  messages_.submitted.push_back(std::move(work));
  wake_.notify_one();
  return last_id_;
}

void LoopInbox::Cancel(RequestId id) {
  const std::lock_guard lock(mutex_);
  messages_.cancelled.push_back(id);
  wake_.notify_one();
}

void LoopInbox::Wake() {
  const std::lock_guard lock(mutex_);
  messages_.look = true;
  wake_.notify_one();
}

void LoopInbox::Stop(Time deadline) {
  const std::lock_guard lock(mutex_);
  stop_deadline_ = stopping_ ? std::min(stop_deadline_, deadline) : deadline;
  stopping_ = true;
  messages_.look = true;  // the loop may be about to sleep
  wake_.notify_one();
}

void LoopInbox::CountRefused() {
  const std::lock_guard lock(mutex_);
  ++refused_;
}

int64_t LoopInbox::refused() const {
  const std::lock_guard lock(mutex_);
  return refused_;
}

LoopInbox::Messages LoopInbox::Take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(messages_, {});
}

void LoopInbox::CountLocked(const Work& work) {
  if (free_slots_ > 0) {
    --free_slots_;
  } else {
    ++in_queue_;
    queue_cells_ += work.cells();
  }
}

void LoopInbox::TellQueue(int requests, int64_t cells, int free_slots) {
  const std::lock_guard lock(mutex_);
  in_queue_ = requests;
  queue_cells_ = cells;
  free_slots_ = free_slots;
  for (const auto& work : messages_.submitted) {
    CountLocked(*work);
  }
}

void LoopInbox::FreeSlot() {
  const std::lock_guard lock(mutex_);
  free_slots_ += in_queue_ == 0 ? 1 : 0;
}

bool LoopInbox::Drained(bool idle, Time now) const {
  const std::lock_guard lock(mutex_);
  return stopping_ && ((idle && messages_.submitted.empty()) || now >= stop_deadline_);
}

void LoopInbox::Sleep(std::chrono::duration<double, std::milli> longest, bool idle, Time now) {
  std::unique_lock lock(mutex_);
  if (stopping_) {
    longest = std::min<std::chrono::duration<double, std::milli>>(longest, stop_deadline_ - now);
  }
  // Stop may have been called since the loop last asked, and been heard of by the step in between.
  wake_.wait_for(lock, longest, [&] {
    return !messages_.submitted.empty() || !messages_.cancelled.empty() || messages_.look || (stopping_ && idle);
  });
}

void LoopInbox::Gather(std::chrono::duration<double, std::milli> pause) {
  const auto end = std::chrono::steady_clock::now() + kMostPauses * pause;
  std::unique_lock lock(mutex_);
  size_t before = 0;
  while (messages_.submitted.size() > before && !stopping_ && std::chrono::steady_clock::now() < end) {
    before = messages_.submitted.size();
    wake_.wait_for(lock, pause, [&] {
      return messages_.submitted.size() > before || !messages_.cancelled.empty() || messages_.look || stopping_;
    });
  }
}

}  // namespace espalier
