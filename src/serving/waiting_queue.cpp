#include "serving/waiting_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace espalier {

Status CheckQueueBounds(const QueueBounds& bounds, int requests, int64_t cells, int64_t more_cells) {
  if (requests >= bounds.requests) {
    return Busy(fmt::format("the queue is full: {} requests wait, {} may", requests, bounds.requests));
  }
  if (requests > 0 && more_cells > bounds.cells - cells) {
    return Busy(fmt::format("the queue is full: requests for {} tokens wait, {} more would exceed {}", cells,
                            more_cells, bounds.cells));
  }
  return Status::Ok();
}

void WaitingQueue::PushBack(std::unique_ptr<Work> work) {
  cells_ += work->cells();
  works_.push_back(std::move(work));
}

void WaitingQueue::Return(std::unique_ptr<Work> work) {
  cells_ += work->cells();
  const auto younger = std::find_if(works_.begin(), works_.end(), [&](const auto& w) { return w->id > work->id; });
  works_.insert(younger, std::move(work));
}

std::unique_ptr<Work> WaitingQueue::PopFront() {
  std::unique_ptr<Work> work = std::move(works_.front());
  works_.pop_front();
  cells_ -= work->cells();
  return work;
}

std::unique_ptr<Work> WaitingQueue::Remove(RequestId id) {
  const auto found = std::find_if(works_.begin(), works_.end(), [&](const auto& work) { return work->id == id; });
  if (found == works_.end()) {
    return nullptr;
  }
  std::unique_ptr<Work> work = std::move(*found);
  works_.erase(found);
  cells_ -= work->cells();
  return work;
}

}  // namespace espalier
