// What happens to a server's memory, as lines on stderr and as JSON Lines in a file.
#pragma once

#include <cstdio>
#include <memory>
#include <string>

#include "base/status.h"
#include "cli/serial_worker.h"
#include "serving/events.h"

namespace espalier {

struct EventOutputOptions {
  std::string file;    // appended to; empty: none
  bool quiet = false;  // no lines on stderr
};

// Follows a log as long as it lives. Writes on a thread of its own: a stalled terminal must not stall the engine.
class EventOutput {
 public:
  // kIo if the file cannot be opened. `log` must outlive this.
  static Result<std::unique_ptr<EventOutput>> Create(const EventOutputOptions& options, EventLog& log);
  ~EventOutput();
  EventOutput(const EventOutput&) = delete;
  EventOutput& operator=(const EventOutput&) = delete;

 private:
  EventOutput(EventLog& log, std::FILE* file, std::string path, bool quiet);
  void Write(const ServingEvent& event);

  EventLog& log_;
  std::FILE* file_;  // the worker's; nullptr: none, or it failed
  const std::string path_;
  const bool quiet_;
  SerialWorker worker_;
  uint64_t handle_ = 0;
};

}  // namespace espalier
