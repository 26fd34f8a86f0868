#include "cli/event_output.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "server/state_json.h"

namespace espalier {

Result<std::unique_ptr<EventOutput>> EventOutput::Create(const EventOutputOptions& options, EventLog& log) {
  std::FILE* file = nullptr;
  if (!options.file.empty()) {
    file = std::fopen(options.file.c_str(), "ae");
    if (file == nullptr) {
      return IoError(fmt::format("{}: cannot append to it: {}", options.file, std::strerror(errno)));
    }
  }
  return std::unique_ptr<EventOutput>(new EventOutput(log, file, options.file, options.quiet));
}

EventOutput::EventOutput(EventLog& log, std::FILE* file, std::string path, bool quiet)
    : log_(log), file_(file), path_(std::move(path)), quiet_(quiet) {
  handle_ = log_.Subscribe([this](const ServingEvent& event) { worker_.Post([this, event] { Write(event); }); });
}

EventOutput::~EventOutput() {
  log_.Unsubscribe(handle_);
  worker_.Finish();
  if (file_ != nullptr) {
    std::fclose(file_);
  }
}

void EventOutput::Write(const ServingEvent& event) {
  if (!quiet_) {
    fmt::print(stderr, "espalier: {:.3f} s: {}\n", event.seconds, event.text);
  }
  if (file_ == nullptr) {
    return;
  }
  const std::string line = Dump(EventJson(event)) + "\n";
  if (std::fputs(line.c_str(), file_) < 0 || std::fflush(file_) != 0) {
    fmt::print(stderr, "espalier: warning: {}: cannot write: {}; no more events go there\n", path_,
               std::strerror(errno));
    std::fclose(file_);
    file_ = nullptr;
  }
}

}  // namespace espalier
