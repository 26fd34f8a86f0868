#include "cli/serial_worker.h"

#include <utility>

namespace espalier {

SerialWorker::SerialWorker() : thread_([this] { Run(); }) {}

void SerialWorker::Finish() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) {
    thread_.join();
  }
}

void SerialWorker::Post(std::function<void()> task) {
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    if (ending_) {
      return;
    }
    tasks_.push_back(std::move(task));
    wake = std::exchange(waiting_, false);
  }
  if (wake) {
    wake_.notify_one();
  }
}

void SerialWorker::Run() {
  std::vector<std::function<void()>> batch;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      waiting_ = tasks_.empty();
      wake_.wait(lock, [this] { return !tasks_.empty() || ending_; });
      waiting_ = false;
      if (tasks_.empty()) {
        return;
      }
      std::swap(batch, tasks_);
    }
    for (auto& task : batch) {
      task();
      task = nullptr;  // what it holds goes before the next one runs
    }
    batch.clear();
  }
}

}  // namespace espalier
