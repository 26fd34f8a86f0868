#include "memory/pressure.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>

namespace espalier {
namespace {

using namespace std::string_literals;
namespace fs = std::filesystem;

class Events {
 public:
  void Add() {
    const std::lock_guard lock(mutex_);
    ++count_;
    changed_.notify_all();
  }
  // False if they do not come within a time that only a hanging test takes.
  bool WaitFor(int count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(60), [&] { return count_ >= count; });
  }
  int count() const {
    const std::lock_guard lock(mutex_);
    return count_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  int count_ = 0;
};

class PressureTest : public testing::Test {
 protected:
  PressureTest() {
    std::string pattern = (fs::temp_directory_path() / "espalier-pressure-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
    ::chmod(folder_.c_str(), 0755);  // for the test that gives up being root
  }
  ~PressureTest() override { fs::remove_all(folder_); }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }
  std::string MakeFifo() const {
    EXPECT_EQ(::mkfifo(Path("fifo").c_str(), 0644), 0);
    return Path("fifo");
  }
  Result<std::unique_ptr<PressureWatch>> Open(const std::string& path, const std::string& write = "") {
    return PressureWatch::Open({.path = path, .write = write, .system_path = Path("system")},
                               [this] { events_.Add(); });
  }
  // Opens the path as one who reports pressure, writes, and closes.
  static void Report(const std::string& path) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    ASSERT_GE(fd, 0);
    EXPECT_EQ(::write(fd, "x", 1), 1);
    ::close(fd);
  }

  fs::path folder_;
  Events events_;
};

// A stream socket in the file system, and one connection to it.
class Listener {
 public:
  explicit Listener(const std::string& path) : fd_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(::bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(fd_, 1), 0);
  }
  ~Listener() {
    Hangup();
    ::close(fd_);
  }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  void Accept() { connection_ = ::accept(fd_, nullptr, nullptr); }
  void Send() const { EXPECT_EQ(::send(connection_, "x", 1, MSG_NOSIGNAL), 1); }
  std::string Receive(size_t bytes) const {
    std::string data(bytes, '\0');
    EXPECT_EQ(::recv(connection_, data.data(), bytes, MSG_WAITALL), static_cast<ssize_t>(bytes));
    return data;
  }
  void Hangup() {
    if (connection_ >= 0) {
      ::close(connection_);
    }
    connection_ = -1;
  }

 private:
  int fd_;
  int connection_ = -1;
};

void WaitForEnd(const PressureWatch& watch) {
  while (watch.watching()) {
    std::this_thread::yield();
  }
}

TEST_F(PressureTest, AByteInAFifoIsAnEventAndItsEndEndsNothing) {
  const auto watch = Open(MakeFifo());
  ASSERT_TRUE(watch.ok()) << watch.status().message();
  EXPECT_EQ((*watch)->path(), Path("fifo"));
  for (int i = 1; i <= 3; ++i) {
    Report(Path("fifo"));
    ASSERT_TRUE(events_.WaitFor(i));
  }
  EXPECT_EQ(events_.count(), 3);
  EXPECT_TRUE((*watch)->watching());
}

TEST_F(PressureTest, AFifoThatMayOnlyBeReadIsHeardAfterItsEndToo) {
  const std::string fifo = MakeFifo();
  const bool is_root = ::geteuid() == 0;
  if (is_root) {
    ASSERT_EQ(::seteuid(65534), 0);
  } else {
    ::chmod(fifo.c_str(), 0444);
  }
  auto watch = Open(fifo);
  const auto with_data = Open(fifo, "eA==");
  if (is_root) {
    ASSERT_EQ(::seteuid(0), 0);
  } else {
    ::chmod(fifo.c_str(), 0644);
  }
  ASSERT_TRUE(watch.ok()) << watch.status().message();
  for (int i = 1; i <= 3; ++i) {
    Report(fifo);
    ASSERT_TRUE(events_.WaitFor(i));
  }
  watch->reset();
  EXPECT_EQ(events_.count(), 3);
  EXPECT_EQ(with_data.status().code(), ErrorCode::kIo);  // what is to be written cannot be
}

TEST_F(PressureTest, AFifoReplacedBySomethingElseEndsTheWatch) {
  const std::string fifo = MakeFifo();
  const bool is_root = ::geteuid() == 0;
  if (!is_root) {
    GTEST_SKIP() << "takes root to open a FIFO for reading only and to write to it";
  }
  ASSERT_EQ(::seteuid(65534), 0);
  auto watch = Open(fifo);
  ASSERT_EQ(::seteuid(0), 0);
  ASSERT_TRUE(watch.ok()) << watch.status().message();
  const int writer = ::open(fifo.c_str(), O_WRONLY | O_CLOEXEC);
  ASSERT_GE(writer, 0);
  fs::remove(fifo);
  std::ofstream(fifo) << "a file";
  ::close(writer);
  WaitForEnd(**watch);
  EXPECT_EQ(events_.count(), 0);
}

TEST_F(PressureTest, WhatIsWrittenIntoAFifoComesBackAsTheFirstEvent) {
  const auto watch = Open(MakeFifo(), "eHl6");
  ASSERT_TRUE(watch.ok()) << watch.status().message();
  EXPECT_TRUE(events_.WaitFor(1));
}

TEST_F(PressureTest, ASocketGetsTheDecodedDataAndItsBytesAreEvents) {
  Listener listener(Path("socket"));
  const auto watch = Open(Path("socket"), "c29tZSAxIDIA");
  ASSERT_TRUE(watch.ok()) << watch.status().message();
  listener.Accept();
  EXPECT_EQ(listener.Receive(9), "some 1 2\0"s);
  listener.Send();
  ASSERT_TRUE(events_.WaitFor(1));
  listener.Send();
  ASSERT_TRUE(events_.WaitFor(2));
  EXPECT_TRUE((*watch)->watching());
}

TEST_F(PressureTest, ASocketThatHangsUpEndsTheWatchWithoutAnEvent) {
  Listener listener(Path("socket"));
  auto watch = Open(Path("socket"));
  ASSERT_TRUE(watch.ok()) << watch.status().message();
  listener.Accept();
  listener.Hangup();
  WaitForEnd(**watch);
  watch->reset();
  EXPECT_EQ(events_.count(), 0);
}

TEST_F(PressureTest, ARegularFileGetsTheDataOrATriggerOfOurOwn) {
  for (const auto& [write, expected] :
       {std::pair("c29tZSAxIDIA"s, "some 1 2\0"s), std::pair(""s, "some 200000 2000000\0"s)}) {
    std::ofstream(Path("psi"), std::ios::trunc).flush();
    const auto watch = Open(Path("psi"), write);
    ASSERT_TRUE(watch.ok()) << watch.status().message();
    std::ifstream in(Path("psi"), std::ios::binary);
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), expected);
  }
  EXPECT_EQ(events_.count(), 0);  // bytes to be read are no pressure there
}

TEST_F(PressureTest, WithoutAPathTheSystemsFileIsWatchedWhereThereIsOne) {
  const auto none = Open("");
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.status().code(), ErrorCode::kUnsupported);
  std::ofstream(Path("system")).flush();
  const auto watch = Open("", "not base64, and not read");
  ASSERT_TRUE(watch.ok()) << watch.status().message();
  EXPECT_EQ((*watch)->path(), Path("system"));
  EXPECT_EQ(fs::file_size(Path("system")), 20u);
}

TEST_F(PressureTest, TheKernelTakesOurTrigger) {
  if (::access("/proc/pressure/memory", W_OK) != 0) {
    GTEST_SKIP() << "/proc/pressure/memory cannot be written here";
  }
  const auto watch = PressureWatch::Open({}, [] {});
  ASSERT_TRUE(watch.ok()) << watch.status().message();
  EXPECT_TRUE((*watch)->watching());
}

TEST_F(PressureTest, DevNullSwitchesItOff) {
  const auto watch = Open("/dev/null", "eA==");
  ASSERT_TRUE(watch.ok()) << watch.status().message();
  EXPECT_EQ(*watch, nullptr);
}

TEST_F(PressureTest, ErrorsNameThePathAndWhatWasExpected) {
  EXPECT_EQ(Open(Path("missing")).status().code(), ErrorCode::kNotFound);
  EXPECT_EQ(Open("/dev/zero").status().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(Open(folder_.string()).status().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(Open(MakeFifo(), "no base64!").status().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(Open(Path("fifo"), std::string(8000, 'A')).status().code(), ErrorCode::kInvalidArgument);
  { Listener listener(Path("dead")); }
  const auto refused = Open(Path("dead"));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), ErrorCode::kIo);
  EXPECT_NE(refused.status().message().find(Path("dead")), std::string::npos) << refused.status().message();
}

TEST_F(PressureTest, DestroyingAWatchWaitsForTheCallThatRuns) {
  Events entered;
  Events leave;
  bool left = false;
  auto watch = PressureWatch::Open({.path = MakeFifo(), .write = "", .system_path = ""}, [&] {
    entered.Add();
    leave.WaitFor(1);
    left = true;
  });
  ASSERT_TRUE(watch.ok()) << watch.status().message();
  Report(Path("fifo"));
  ASSERT_TRUE(entered.WaitFor(1));
  leave.Add();
  watch->reset();
  EXPECT_TRUE(left);
}

}  // namespace
}  // namespace espalier
