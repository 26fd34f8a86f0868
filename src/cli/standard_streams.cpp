#include "cli/standard_streams.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

namespace espalier {
namespace {

std::atomic<bool> output_lost = false;

ssize_t WriteOrLose(void* cookie, const char* bytes, size_t size) {
  const auto fd = static_cast<int>(reinterpret_cast<intptr_t>(cookie));
  for (size_t done = 0; done < size;) {
    const ssize_t n = ::write(fd, bytes + done, size - done);
    if (n > 0) {
      done += static_cast<size_t>(n);
    } else if (errno != EINTR) {
      output_lost = output_lost || fd == STDOUT_FILENO;
      break;
    }
  }
  return static_cast<ssize_t>(size);
}

// As `stream` is buffered. It stays what it was where there is no memory for another.
void Replace(std::FILE*& stream, int fd, int buffering) {
  std::fflush(stream);
  const cookie_io_functions_t functions = {.read = nullptr, .write = WriteOrLose, .seek = nullptr, .close = nullptr};
  std::FILE* other = ::fopencookie(reinterpret_cast<void*>(static_cast<intptr_t>(fd)), "w", functions);
  if (other != nullptr) {
    std::setvbuf(other, nullptr, buffering, BUFSIZ);
    stream = other;
  }
}

// A file that is opened later would take the number of one that is closed, and what is printed would land in it.
void OccupyClosedDescriptors() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (::fcntl(fd, F_GETFD) == -1) {
      // The way in which it is of no use: reading and writing go on failing. The lowest free number is this one.
      (void)::open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
    }
  }
}

}  // namespace

void KeepStreamsFromFailing() {
  OccupyClosedDescriptors();
  Replace(stdout, STDOUT_FILENO, ::isatty(STDOUT_FILENO) == 1 ? _IOLBF : _IOFBF);
  Replace(stderr, STDERR_FILENO, _IONBF);
}

bool IsOutputLost() {
  const bool flushed = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  return output_lost || !flushed;
}

int DescriptorOf(std::FILE* stream) {
  return stream == stdout ? STDOUT_FILENO : stream == stderr ? STDERR_FILENO : ::fileno(stream);
}

}  // namespace espalier
