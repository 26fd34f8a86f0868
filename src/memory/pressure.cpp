#include "memory/pressure.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>

#include "memory/base64.h"

namespace espalier {
namespace {

// The kernel overwrites the last byte of what it gets with a NUL, so one is sent along.
constexpr std::string_view kTrigger("some 200000 2000000\0", 20);
constexpr size_t kMaxWriteBytes = 4096;

Status SystemError(const std::string& path, const char* what, int error) {
  return Status(error == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
                fmt::format("memory pressure: {}: {}: {}", path, what, std::strerror(error)));
}

Result<int> Connect(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return InvalidArgument(fmt::format("memory pressure: socket '{}': expected a path of at most {} bytes, found {}",
                                       path, sizeof address.sun_path - 1, path.size()));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    return SystemError(path, "cannot make a socket", errno);
  }
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const int error = errno;
    ::close(fd);
    return SystemError(path, "cannot connect", error);
  }
  return fd;
}

// Opened for writing too, we are ourselves a writer of the FIFO, and its end is never seen. Where that is not allowed
// and nothing has to be written, reading will do.
Result<int> OpenFile(const std::string& path, bool must_write) {
  int fd = ::open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  if (fd < 0 && errno == EACCES && !must_write) {
    fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  }
  if (fd < 0) {
    return SystemError(path, "cannot be opened", errno);
  }
  return fd;
}

// In one call: a PSI file takes a trigger whole.
Status WriteAll(const std::string& path, int fd, bool is_socket, std::string_view data) {
  const ssize_t n =
      is_socket ? ::send(fd, data.data(), data.size(), MSG_NOSIGNAL) : ::write(fd, data.data(), data.size());
  if (n < 0) {
    return SystemError(path, "cannot be written to", errno);
  }
  if (static_cast<size_t>(n) != data.size()) {
    return IoError(fmt::format("memory pressure: {}: expected to write {} bytes, wrote {}", path, data.size(), n));
  }
  return Status::Ok();
}

Result<std::string> DecodeWrite(const std::string& text) {
  auto data = DecodeBase64(text);
  if (!data.ok()) {
    return InvalidArgument(fmt::format("memory pressure: what to write: {}", data.status().message()));
  }
  if (data->size() > kMaxWriteBytes) {
    return InvalidArgument(fmt::format("memory pressure: what to write: expected at most {} bytes, found {}",
                                       kMaxWriteBytes, data->size()));
  }
  return data;
}

}  // namespace

Result<std::unique_ptr<PressureWatch>> PressureWatch::Open(const PressureOptions& options,
                                                           std::function<void()> on_pressure) {
  if (options.path.empty()) {
    PressureOptions system = {.path = options.system_path, .write = "", .system_path = ""};
    auto watch = Open(system, std::move(on_pressure));
    return watch.ok() ? std::move(watch) : Unsupported(watch.status().message());
  }
  const std::string& path = options.path;
  if (path == "/dev/null") {
    return std::unique_ptr<PressureWatch>();
  }
  ESPALIER_ASSIGN_OR_RETURN(std::string data, DecodeWrite(options.write));
  struct stat info = {};
  if (::stat(path.c_str(), &info) != 0) {
    return SystemError(path, "cannot be found", errno);
  }
  const Kind kind = S_ISREG(info.st_mode) ? Kind::kPsi : S_ISFIFO(info.st_mode) ? Kind::kFifo : Kind::kSocket;
  if (kind == Kind::kSocket && !S_ISSOCK(info.st_mode)) {
    return InvalidArgument(fmt::format("memory pressure: {}: expected a PSI file, a FIFO or a socket", path));
  }
  if (kind == Kind::kPsi && data.empty()) {
    data = kTrigger;
  }
  ESPALIER_ASSIGN_OR_RETURN(const int fd, kind == Kind::kSocket ? Connect(path) : OpenFile(path, !data.empty()));
  if (Status written = data.empty() ? Status::Ok() : WriteAll(path, fd, kind == Kind::kSocket, data); !written.ok()) {
    ::close(fd);
    return written;
  }
  const int stop_fd = ::eventfd(0, EFD_CLOEXEC);
  if (stop_fd < 0) {
    const int error = errno;
    ::close(fd);
    return SystemError(path, "cannot make an eventfd", error);
  }
  return std::unique_ptr<PressureWatch>(new PressureWatch(path, kind, fd, stop_fd, std::move(on_pressure)));
}

PressureWatch::PressureWatch(std::string path, Kind kind, int fd, int stop_fd, std::function<void()> on_pressure)
    : path_(std::move(path)), kind_(kind), fd_(fd), stop_fd_(stop_fd), on_pressure_(std::move(on_pressure)) {
  thread_ = std::thread([this] { Run(); });
}

PressureWatch::~PressureWatch() {
  const uint64_t one = 1;
  while (::write(stop_fd_, &one, sizeof one) < 0 && errno == EINTR) {
  }
  thread_.join();
  CloseSource();
  ::close(stop_fd_);
}

void PressureWatch::Run() {
  while (true) {
    // poll passes over a negative descriptor.
    pollfd polled[] = {{stop_fd_, POLLIN, 0}, {fd_, kind_ == Kind::kPsi ? short{POLLPRI} : short{POLLIN}, 0}};
    if (::poll(polled, 2, -1) < 0) {
      if (errno == EINTR) {
        continue;
      }
      CloseSource();
      return;
    }
    if (polled[0].revents != 0) {
      return;
    }
    if (polled[1].revents != 0 && Take(polled[1].revents)) {
      on_pressure_();
    }
  }
}

bool PressureWatch::Take(short revents) {
  if (kind_ == Kind::kPsi) {
    // Both at once: the cgroup has gone, and the kernel wakes all who wait.
    if ((revents & (POLLERR | POLLHUP | POLLNVAL)) != 0) {
      CloseSource();
      return false;
    }
    return (revents & POLLPRI) != 0;
  }
  bool event = false;
  char discarded[4096];
  // Bounded, so that one who writes without end cannot keep us from stopping.
  for (int i = 0; i < 16; ++i) {
    const ssize_t n = ::read(fd_, discarded, sizeof discarded);
    if (n > 0) {
      event = true;
    } else if (n < 0 && errno == EINTR) {
      continue;
    } else if (n < 0 && errno == EAGAIN) {
      return event;
    } else if (n == 0 && kind_ == Kind::kFifo) {
      ReopenFifo();
      return event;
    } else {
      CloseSource();
      return event;
    }
  }
  return event;
}

void PressureWatch::ReopenFifo() {
  const int fd = ::open(path_.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  struct stat info = {};
  if (fd >= 0 && (::fstat(fd, &info) != 0 || !S_ISFIFO(info.st_mode))) {
    ::close(fd);
    CloseSource();
    return;
  }
  if (fd < 0) {
    CloseSource();
    return;
  }
  ::close(fd_);
  fd_ = fd;
}

void PressureWatch::CloseSource() {
  watching_ = false;
  if (fd_ >= 0) {
    ::close(fd_);
    fd_ = -1;
  }
}

}  // namespace espalier
