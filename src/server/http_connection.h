// One connection: reads requests, hands them to the handler one at a time, writes their answers in order.
// Internal to this layer's .cpp files: the only header with Asio in it.
#pragma once

#include <array>
#include <atomic>
#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "server/http_answer.h"
#include "server/http_parser.h"
#include "server/http_server.h"

namespace espalier {

class HttpConnection;

// What a server's connections share. Each of them owns a part of it, so that it outlives the server where a responder
// is just keeping a connection alive.
struct HttpServerCore {
  HttpServerCore(const HttpServerOptions& server_options, HttpHandler request_handler)
      : options(server_options), handler(std::move(request_handler)) {}

  const HttpServerOptions options;
  const HttpHandler handler;
  boost::asio::io_context io;
  std::atomic<bool> draining = false;  // no new connections, no new requests
  std::atomic<int> connections = 0;    // objects that exist, those of refused clients not counted
  std::atomic<int64_t> failed_accepts = 0;
  std::atomic<int> refused = 0;  // objects that exist for clients that are told 503

  std::mutex mutex;
  // Guarded by mutex:
  std::unordered_map<HttpConnection*, std::weak_ptr<HttpConnection>> open;
};

using HttpStrand = boost::asio::strand<boost::asio::io_context::executor_type>;
using HttpSocket = boost::asio::basic_stream_socket<boost::asio::ip::tcp, HttpStrand>;

// Thread rule: everything on its strand, except Open, Drain and Abort, which come from any thread and post to it.
// Owned by the operations that are pending on its socket and timer and by the answer in progress: gone when closed.
class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  // Takes the socket of a client that was just accepted, and serves it; over max_connections, tells it so and closes.
  static void Open(const std::shared_ptr<HttpServerCore>& core, HttpSocket socket);

  HttpConnection(std::shared_ptr<HttpServerCore> core, HttpSocket socket, std::atomic<int>& counter);
  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;
  ~HttpConnection();

  // No request after the one that is being answered; one that is half received gets 503.
  void Drain();
  // Closes at once.
  void Abort();

 private:
  using Clock = std::chrono::steady_clock;
  using Buffers = std::array<boost::asio::const_buffer, 16>;  // of one system call

  enum class Phase {
    kIdle,       // between requests
    kHeader,     // some of a request's header came
    kBody,       // some of its body is missing
    kAnswering,  // the handler has it, or its answer is being written
    kParting,    // the last bytes are being written, or were: what the client still sends is thrown away
    kClosed,
  };

  // That long after now.
  static Clock::time_point After(double seconds);

  // http_connection.cpp: requests
  void Start();
  void Refuse();
  void Read();
  void OnRead(const boost::system::error_code& error, size_t bytes);
  void OnEndOfRequests();
  void Advance();
  void Dispatch();
  void FinishAnswer();
  void OnBodyToCome();
  void GiveError(int status, const std::string& reason);
  // The connection's last answer.
  void GiveLast(HttpResponse response);
  void Part();
  void Close(bool reset);
  void WatchTime();
  void OnTime();

  // http_connection_write.cpp: answers
  void RunTask(const std::function<void()>& task);
  void Wake();  // any thread, with the answer's lock held
  void OnWake();
  void Pump();
  void Enqueue(HttpAnswer::Output output);
  void StartWriting();
  Buffers Gather() const;
  void WriteLater();
  void OnWritten(const boost::system::error_code& error, size_t bytes);

  const std::shared_ptr<HttpServerCore> core_;
  std::atomic<int>& counter_;
  HttpSocket socket_;
  boost::asio::steady_timer timer_;
  std::string peer_;
  Phase phase_ = Phase::kIdle;

  // One timer for both deadlines; it is only set anew when something is due before it goes off, so that a part that is
  // written costs no timer.
  Clock::time_point read_deadline_ = Clock::time_point::max();
  Clock::time_point write_deadline_ = Clock::time_point::max();
  Clock::time_point timer_set_to_ = Clock::time_point::max();  // max: not set

  // Reading. A read is pending at all times, that is how a client's leaving is noticed; only one that sends more than
  // kMaxAhead bytes of further requests while it waits for an answer is not read from, and noticed when we write.
  static constexpr size_t kMaxAhead = size_t{64} * 1024;
  std::array<char, 16384> read_buffer_;
  std::string in_;  // received, not consumed
  bool reading_ = false;
  bool end_of_requests_ = false;  // the client closed its sending side
  std::unique_ptr<HttpRequestParser> parser_;

  // The answer in progress.
  std::shared_ptr<HttpAnswer> answer_;
  bool keep_alive_ = true;
  bool http10_ = false;
  bool head_only_ = false;  // HEAD, or a status without body
  bool chunked_ = false;
  bool complete_ = false;  // everything of it was taken over
  bool in_task_ = false;   // one of the answerer's tasks is running
  bool woken_ = false;     // by that task

  // Writing.
  std::vector<std::string> queue_;   // to be written next
  std::vector<std::string> flight_;  // being written
  size_t flight_index_ = 0;          // flight_[flight_index_][flight_offset_] is the first byte not yet taken
  size_t flight_offset_ = 0;
  size_t flight_bytes_ = 0;  // left
  bool writing_ = false;
  bool writing_at_once_ = false;
};

}  // namespace espalier
