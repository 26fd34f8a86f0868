// What the system takes for handing a token to a client, whatever a server does with it: a thread is woken, and sends
// some bytes over a loopback connection whose reader sleeps until they come. `bench/serving_results.py` shows it beside
// what the servers' front ends take.
//
//   espalier_loopback_floor TOKENS_PER_SECOND TOKENS BYTES     prints {"sender_us": ...}: processor time per token
#include <arpa/inet.h>
#include <netinet/in.h>
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
  return *ours >= 0;
}

[[noreturn]] void ReadAll(int socket) {
  char buffer[4096];
  while (::read(socket, buffer, sizeof buffer) > 0) {
  }
  ::_exit(0);
}

}  // namespace

int main(int argc, char** argv) {
  const double rate = argc > 1 ? std::atof(argv[1]) : 0;
  const int tokens = argc > 2 ? std::atoi(argv[2]) : 0;
  const int bytes = argc > 3 ? std::atoi(argv[3]) : 0;
  if (rate <= 0 || tokens <= 0 || bytes <= 0) {
    std::fprintf(stderr, "usage: espalier_loopback_floor TOKENS_PER_SECOND TOKENS BYTES\n");
    return 2;
  }
  int ours = -1;
  int theirs = -1;
  if (!Connect(&ours, &theirs)) {
    std::perror("espalier_loopback_floor");
    return 1;
  }
  const pid_t reader = ::fork();
  if (reader == 0) {
    ::close(ours);
    ReadAll(theirs);
  }
  ::close(theirs);

  std::mutex mutex;
  std::condition_variable wake;
  int made = 0;  // guarded by mutex
  bool failed = false;
  double seconds = 0;
  std::thread sender([&] {
    const std::string text(static_cast<size_t>(bytes), 'x');
    for (int sent = 0; sent < tokens; ++sent) {
      {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return made > sent; });
      }
      failed = failed || ::send(ours, text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size());
    }
    timespec used = {};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    seconds = static_cast<double>(used.tv_sec) + 1e-9 * static_cast<double>(used.tv_nsec);
  });
  auto next = std::chrono::steady_clock::now();
  for (int i = 0; i < tokens; ++i) {
    next += std::chrono::nanoseconds(static_cast<int64_t>(1e9 / rate));
    std::this_thread::sleep_until(next);
    {
      const std::lock_guard lock(mutex);
      ++made;
    }
    wake.notify_one();
  }
  sender.join();
  ::close(ours);
  ::waitpid(reader, nullptr, 0);
  if (failed) {
    std::fprintf(stderr, "espalier_loopback_floor: send failed\n");
    return 1;
  }
  std::printf("{\"sender_us\": %.2f}\n", 1e6 * seconds / tokens);
  return 0;
}
