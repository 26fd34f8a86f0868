// Requests that wait, in the order of submission.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>

#include "base/status.h"
#include "serving/work.h"

namespace espalier {

struct QueueBounds {
  int requests = 512;
  int64_t cells = int64_t{1} << 24;  // KV cells that they ask for together
};

// kBusy, with the numbers, if `requests` that ask for `cells` already wait and one more for `more_cells` is too much.
// One request of whatever size may always wait.
Status CheckQueueBounds(const QueueBounds& bounds, int requests, int64_t cells, int64_t more_cells);

// Thread rule: one thread at a time.
class WaitingQueue {
 public:
  void PushBack(std::unique_ptr<Work> work);
  // For one that was taken out: before those that came after it.
  void Return(std::unique_ptr<Work> work);

  bool empty() const { return works_.empty(); }
  size_t size() const { return works_.size(); }
  int64_t cells() const { return cells_; }  // asked for by all of them
  const Work& front() const { return *works_.front(); }
  std::unique_ptr<Work> PopFront();
  // nullptr if it is not here.
  std::unique_ptr<Work> Remove(RequestId id);

  auto begin() const { return works_.begin(); }
  auto end() const { return works_.end(); }

 private:
  std::deque<std::unique_ptr<Work>> works_;
  int64_t cells_ = 0;
};

}  // namespace espalier
