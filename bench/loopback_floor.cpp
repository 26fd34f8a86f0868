// What the system takes for handing tokens to clients, whatever a server does with them: a thread is woken for each
// step, and sends some bytes over each of its loopback connections, whose reader sleeps until they come.
// `bench/serving_results.py` shows it beside what the servers' front ends take.
//
//   espalier_loopback_floor TOKENS_PER_SECOND TOKENS BYTES [STREAMS]
//
// prints {"sender_us": ...}: processor time per token. TOKENS and their rate are of all streams together.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

// Connected sockets: ours and the reader's.
bool Connect(int* ours, int* theirs) {
  const int door = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  if (::bind(door, any, size) != 0 || ::listen(door, 1) != 0 || ::getsockname(door, any, &size) != 0) {
    return false;
  }
  *theirs = ::socket(AF_INET, SOCK_STREAM, 0);
  if (::connect(*theirs, any, size) != 0) {
    return false;
  }
  *ours = ::accept(door, nullptr, nullptr);
  ::close(door);
  const int at_once = 1;  // as servers do that stream
  return *ours >= 0 && ::setsockopt(*ours, IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof at_once) == 0;
}

// Until all of them end: one reader for all, as the bench's client is.
[[noreturn]] void ReadAll(const std::vector<int>& sockets) {
  std::vector<pollfd> open;
  for (const int socket : sockets) {
    open.push_back({socket, POLLIN, 0});
  }
  char buffer[4096];
  for (size_t left = open.size(); left > 0;) {
    ::poll(open.data(), open.size(), -1);
    for (pollfd& one : open) {
      if (one.revents != 0 && ::read(one.fd, buffer, sizeof buffer) <= 0) {
        one.fd = -1;  // poll passes it over
        --left;
      }
    }
  }
  ::_exit(0);
}

}  // namespace

int main(int argc, char** argv) {
  const double rate = argc > 1 ? std::atof(argv[1]) : 0;
  const int tokens = argc > 2 ? std::atoi(argv[2]) : 0;
  const int bytes = argc > 3 ? std::atoi(argv[3]) : 0;
  const int streams = argc > 4 ? std::atoi(argv[4]) : 1;
  if (rate <= 0 || tokens <= 0 || bytes <= 0 || streams <= 0 || streams > 256) {
    std::fprintf(stderr, "usage: espalier_loopback_floor TOKENS_PER_SECOND TOKENS BYTES [STREAMS]\n");
    return 2;
  }
  std::vector<int> ours(static_cast<size_t>(streams));
  std::vector<int> theirs(ours.size());
  for (size_t i = 0; i < ours.size(); ++i) {
    if (!Connect(&ours[i], &theirs[i])) {
      std::perror("espalier_loopback_floor");
      return 1;
    }
  }
  const auto close_all = [](const std::vector<int>& sockets) {
    for (const int socket : sockets) {
      ::close(socket);
    }
  };
  const pid_t reader = ::fork();
  if (reader == 0) {
    close_all(ours);
    ReadAll(theirs);
  }
  close_all(theirs);
  const int steps = (tokens + streams - 1) / streams;

  std::mutex mutex;
  std::condition_variable wake;
  int made = 0;  // guarded by mutex
  bool failed = false;
  double seconds = 0;
  std::thread sender([&] {
    const std::string text(static_cast<size_t>(bytes), 'x');
    for (int sent = 0; sent < steps; ++sent) {
      {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return made > sent; });
      }
      for (const int socket : ours) {
        failed = failed || ::send(socket, text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size());
      }
    }
    timespec used = {};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    seconds = static_cast<double>(used.tv_sec) + 1e-9 * static_cast<double>(used.tv_nsec);
  });
  auto next = std::chrono::steady_clock::now();
  for (int i = 0; i < steps; ++i) {
    next += std::chrono::nanoseconds(static_cast<int64_t>(1e9 * streams / rate));
    std::this_thread::sleep_until(next);
    {
      const std::lock_guard lock(mutex);
      ++made;
    }
    wake.notify_one();
  }
  sender.join();
  close_all(ours);
  ::waitpid(reader, nullptr, 0);
  if (failed) {
    std::fprintf(stderr, "espalier_loopback_floor: send failed\n");
    return 1;
  }
  std::printf("{\"sender_us\": %.2f}\n", 1e6 * seconds / (steps * streams));
  return 0;
}
