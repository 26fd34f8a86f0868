// Memory pressure as an event: systemd's protocol (https://systemd.io/PRESSURE), or the kernel's PSI file.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "base/status.h"

namespace espalier {

struct PressureOptions {
  // $MEMORY_PRESSURE_WATCH. "/dev/null": no watching. Empty: `system_path`, with a trigger of our own.
  std::string path;
  // $MEMORY_PRESSURE_WRITE, in base64: written into `path` once it is open. Ignored if `path` is empty. If it is empty
  // and `path` is a PSI file, our own trigger is written, without which the kernel reports nothing.
  std::string write;
  std::string system_path = "/proc/pressure/memory";
};

// Calls back at each pressure event, on a thread of its own. A hint to let go of caches and to stop growing, not a
// limit and not a state: the kernel reports at most one event per window (2 s) and never that it is over.
//
// `path` may be
//   - a PSI file (any regular file): POLLPRI, never read from. Our trigger is "some 200000 2000000": within 2 s some
//     task waited 200 ms for memory (systemd's default is the same 10 %). 2 s are the shortest window that the kernel
//     gives to a process without CAP_SYS_RESOURCE;
//   - a FIFO: any byte is an event; bytes that come together are one. A writer that closes it ends nothing: the next
//   one
//     is heard as well. What `write` puts in comes back as a first event, as the protocol has it;
//   - an AF_UNIX stream socket that listens: any byte is an event, its end the end of watching.
class PressureWatch {
 public:
  // nullptr if switched off ("/dev/null"). kUnsupported if `path` is empty and the system gives no pressure events
  // (kernel without PSI, file not writable in a container): a server goes on without. Otherwise kNotFound, kIo, or
  // kInvalidArgument for what is no base64, or is none of the three kinds.
  // `on_pressure` must be short, must not throw and must not destroy the watch.
  static Result<std::unique_ptr<PressureWatch>> Open(const PressureOptions& options, std::function<void()> on_pressure);
  // Waits for a call to `on_pressure` that is running; none comes afterwards.
  ~PressureWatch();
  PressureWatch(const PressureWatch&) = delete;
  PressureWatch& operator=(const PressureWatch&) = delete;

  // False once the source has ended: a socket closed by its peer, a PSI file whose cgroup has gone. Any thread.
  bool watching() const { return watching_; }
  // What is watched.
  const std::string& path() const { return path_; }

 private:
  enum class Kind { kPsi, kFifo, kSocket };

  PressureWatch(std::string path, Kind kind, int fd, int stop_fd, std::function<void()> on_pressure);
  void Run();
  // Takes in what poll reported. True if it was an event; closes fd_ if the source has ended.
  bool Take(short revents);
  // The other end of a FIFO that we may only read has closed: without a new descriptor poll would return at once for
  // ever.
  void ReopenFifo();
  void CloseSource();

  const std::string path_;
  const Kind kind_;
  int fd_;  // -1 once it has ended; the thread's
  const int stop_fd_;
  const std::function<void()> on_pressure_;
  std::atomic<bool> watching_{true};
  std::thread thread_;
};

}  // namespace espalier
