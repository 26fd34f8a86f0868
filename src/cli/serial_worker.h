// One thread that does what it is handed, in order: what must not take the engine thread's time.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace espalier {

// Thread rule: Post from any thread, also from the worker's own.
class SerialWorker {
 public:
  SerialWorker();
  ~SerialWorker() { Finish(); }
  SerialWorker(const SerialWorker&) = delete;
  SerialWorker& operator=(const SerialWorker&) = delete;

  void Post(std::function<void()> task);
  // Returns when everything that was posted before is done, and ends: later posts are dropped. Not from the worker's
  // thread.
  void Finish();

 private:
  void Run();

  std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::vector<std::function<void()>> tasks_;
  bool waiting_ = false;  // the thread has nothing to do: only then it has to be woken
  bool ending_ = false;
  std::thread thread_;  // last: it begins with everything else in place
};

}  // namespace espalier
