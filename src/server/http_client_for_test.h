// A client on a raw socket, which can send what no HTTP library would. Nothing in it waits for ever: what does not come
// within kPatience is a failure of the test.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "server/http_head.h"
#include "server/http_server.h"

namespace espalier {

constexpr std::chrono::seconds kPatience(30);

// Whether it came true.
inline bool Eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) {
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

struct RawAnswer {
  int status = 0;  // 0: the connection ended before a whole head
  std::string head;
  std::string body;       // without chunks' framing
  bool complete = false;  // by its length or its last chunk

  std::string header(std::string_view name) const {
    size_t at = head.find("\r\n");
    while (at != std::string::npos && at + 2 < head.size()) {
      const size_t end = head.find("\r\n", at + 2);
      const std::string line = head.substr(at + 2, end - at - 2);
      const size_t colon = line.find(": ");
      if (colon != std::string::npos && SameHttpName(line.substr(0, colon), name)) {
        return line.substr(colon + 2);
      }
      at = end;
    }
    return {};
  }
};

class RawClient {
 public:
  // Does not connect yet.
  RawClient() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {}
  explicit RawClient(uint16_t port) : RawClient() { Connect(port); }
  RawClient(RawClient&& other) noexcept : fd_(std::exchange(other.fd_, -1)), buffer_(std::move(other.buffer_)) {}
  RawClient& operator=(RawClient&&) = delete;
  ~RawClient() { Close(); }

  // The kernel takes less for a client that does not read. REQUIRES: not connected
  void ShrinkReceiveBuffer() {
    const int bytes = 4096;
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
  }
  void Connect(uint16_t port) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0) << errno;
  }

  // False if the server has closed the connection.
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0) {
        return false;
      }
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }
  void HalfClose() { ::shutdown(fd_, SHUT_WR); }
  void Close() {
    if (fd_ >= 0) {
      ::close(std::exchange(fd_, -1));
    }
  }
  void Reset() {
    const linger at_once = {1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    Close();
  }

  // Until `mark` has come (it is included) or the connection has ended.
  std::string ReadUntil(std::string_view mark) {
    size_t at = buffer_.find(mark);
    while (at == std::string::npos && Receive()) {
      at = buffer_.find(mark);
    }
    return Cut(at == std::string::npos ? buffer_.size() : at + mark.size());
  }
  std::string ReadBytes(size_t count) {
    while (buffer_.size() < count && Receive()) {
    }
    return Cut(std::min(count, buffer_.size()));
  }
  // Until the end of the connection, by FIN or RST.
  std::string ReadToEnd() {
    while (Receive()) {
    }
    return Cut(buffer_.size());
  }
  bool EndsWithReset() {
    ReadToEnd();
    return reset_;
  }

  // `head_only`: the answer to HEAD.
  RawAnswer ReadAnswer(bool head_only = false) {
    RawAnswer answer;
    answer.head = ReadUntil("\r\n\r\n");
    if (!answer.head.ends_with("\r\n\r\n")) {
      return answer;
    }
    answer.status = std::atoi(answer.head.c_str() + std::string_view("HTTP/1.1 ").size());
    if (head_only || !HttpStatusHasBody(answer.status)) {
      answer.complete = true;
    } else if (answer.header("Transfer-Encoding") == "chunked") {
      ReadChunks(&answer);
    } else if (const std::string length = answer.header("Content-Length"); !length.empty()) {
      answer.body = ReadBytes(std::stoul(length));
      answer.complete = answer.body.size() == std::stoul(length);
    } else {
      answer.body = ReadToEnd();
      answer.complete = !reset_;
    }
    return answer;
  }

 private:
  void ReadChunks(RawAnswer* answer) {
    for (;;) {
      const std::string line = ReadUntil("\r\n");
      if (!line.ends_with("\r\n")) {
        return;
      }
      const size_t size = std::stoul(line, nullptr, 16);
      const std::string chunk = ReadBytes(size + 2);
      if (!chunk.ends_with("\r\n") || chunk.size() != size + 2) {
        return;
      }
      if (size == 0) {
        answer->complete = true;
        return;
      }
      answer->body += chunk.substr(0, size);
    }
  }

  std::string Cut(size_t count) {
    std::string front = buffer_.substr(0, count);
    buffer_.erase(0, count);
    return front;
  }

  // False at the end of the connection.
  bool Receive() {
    pollfd wanted = {fd_, POLLIN, 0};
    if (::poll(&wanted, 1, static_cast<int>(std::chrono::milliseconds(kPatience).count())) != 1) {
      ADD_FAILURE() << "nothing came from the server; so far: " << buffer_.substr(0, 200);
      return false;
    }
    char bytes[16384];
    const ssize_t count = ::recv(fd_, bytes, sizeof bytes, 0);
    if (count <= 0) {
      reset_ = count < 0 && errno == ECONNRESET;
      return false;
    }
    buffer_.append(bytes, static_cast<size_t>(count));
    return true;
  }

  int fd_;
  std::string buffer_;
  bool reset_ = false;
};

inline std::unique_ptr<HttpServer> StartForTest(const HttpHandler& handler, HttpServerOptions options = {}) {
  options.port = 0;
  auto server = HttpServer::Start(options, handler);
  EXPECT_TRUE(server.ok()) << server.status().message();
  return std::move(server).value();
}

// A handler that tells what it was asked.
inline void Echo(HttpRequest request, const std::shared_ptr<HttpResponder>& responder) {
  HttpResponse response;
  response.content_type = "text/plain";
  response.body = request.method + " " + request.path + " " + request.query + " " + request.body;
  responder->Send(std::move(response));
}

}  // namespace espalier
