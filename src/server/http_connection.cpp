#include "server/http_connection.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <utility>

#include "server/http_head.h"

namespace espalier {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

// How long the last bytes have to reach a client that still sends: closing with unread bytes makes a reset, which may
// overtake them.
constexpr double kPartingSeconds = 1;
// Clients over the limit that are being told so at once; beyond, they are just closed.
constexpr int kMaxRefusing = 64;

std::string PeerName(const HttpSocket& socket) {
  error_code error;
  const auto peer = socket.remote_endpoint(error);
  if (error) {
    return "unknown";
  }
  const std::string address = peer.address().to_string();
  return peer.address().is_v6() ? fmt::format("[{}]:{}", address, peer.port())
                                : fmt::format("{}:{}", address, peer.port());
}

}  // namespace

HttpConnection::Clock::time_point HttpConnection::After(double seconds) {
  const auto duration = std::chrono::duration<double>(std::clamp(seconds, 0.0, 1e8));
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(duration);
}

void HttpConnection::Open(const std::shared_ptr<HttpServerCore>& core, HttpSocket socket) {
  error_code ignored;
  socket.set_option(asio::ip::tcp::no_delay(true), ignored);
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
  socket.non_blocking(true, ignored);
  const bool refuse = core->connections >= core->options.max_connections;
  if (refuse && core->refused >= kMaxRefusing) {
    return;
  }
  auto connection =
      std::make_shared<HttpConnection>(core, std::move(socket), refuse ? core->refused : core->connections);
  {
    const std::lock_guard lock(core->mutex);
    if (core->draining) {
      return;
    }
    core->open.emplace(connection.get(), connection);
  }
  asio::post(connection->socket_.get_executor(),
             [connection, refuse] { refuse ? connection->Refuse() : connection->Start(); });
}

HttpConnection::HttpConnection(std::shared_ptr<HttpServerCore> core, HttpSocket socket, std::atomic<int>& counter)
    : core_(std::move(core)),
      counter_(counter),
      socket_(std::move(socket)),
      timer_(socket_.get_executor()),
      peer_(PeerName(socket_)) {
  ++counter_;
}

HttpConnection::~HttpConnection() {
  --counter_;
  const std::lock_guard lock(core_->mutex);
  core_->open.erase(this);
}

void HttpConnection::Drain() {
  asio::post(socket_.get_executor(), [self = shared_from_this()] {
    if (self->phase_ == Phase::kIdle) {
      self->Close(false);
    } else if (self->phase_ == Phase::kHeader || self->phase_ == Phase::kBody) {
      self->GiveError(503, "the server is stopping");
    }
  });
}

void HttpConnection::Abort() {
  asio::post(socket_.get_executor(), [self = shared_from_this()] { self->Close(self->phase_ == Phase::kAnswering); });
}

void HttpConnection::Start() {
  if (phase_ != Phase::kIdle) {
    return;  // drained or aborted meanwhile
  }
  parser_ = std::make_unique<HttpRequestParser>(core_->options.max_header_bytes, core_->options.max_body_bytes);
  read_deadline_ = After(core_->options.idle_seconds);
  WatchTime();
  Read();
}

void HttpConnection::Refuse() {
  if (phase_ == Phase::kIdle) {
    GiveError(503, fmt::format("the server has {} connections, which is its limit", core_->options.max_connections));
    Read();
  }
}

void HttpConnection::Read() {
  if (reading_ || end_of_requests_ || phase_ == Phase::kClosed ||
      (phase_ == Phase::kAnswering && in_.size() > kMaxAhead)) {
    return;
  }
  reading_ = true;
  socket_.async_read_some(
      asio::buffer(read_buffer_),
      [self = shared_from_this()](const error_code& error, size_t bytes) { self->OnRead(error, bytes); });
}

void HttpConnection::OnRead(const error_code& error, size_t bytes) {
  reading_ = false;
  if (phase_ == Phase::kClosed) {
    return;
  }
  if (error == asio::error::eof) {
    return OnEndOfRequests();
  }
  if (error) {
    return Close(true);
  }
  if (phase_ != Phase::kParting) {
    in_.append(read_buffer_.data(), bytes);
    Advance();
  }
  Read();
}

void HttpConnection::OnEndOfRequests() {
  end_of_requests_ = true;
  // Some clients only close their sending side and still want the answer. They cannot be told from those that left, and
  // an answer nobody reads may cost minutes of work, so only what is complete already is still delivered.
  const bool deliver = phase_ == Phase::kParting ? writing_ : phase_ == Phase::kAnswering && answer_->ended();
  if (!deliver) {
    Close(phase_ == Phase::kAnswering);
  }
}

void HttpConnection::Advance() {
  if (phase_ != Phase::kIdle && phase_ != Phase::kHeader && phase_ != Phase::kBody) {
    return;
  }
  in_.erase(0, parser_->Feed(in_));
  switch (parser_->state()) {
    case HttpRequestParser::State::kNothing:
      break;
    case HttpRequestParser::State::kHeader:
      if (phase_ == Phase::kIdle) {
        phase_ = Phase::kHeader;
        read_deadline_ = After(core_->options.header_seconds);
        WatchTime();
      }
      break;
    case HttpRequestParser::State::kBody:
      if (phase_ != Phase::kBody) {
        OnBodyToCome();
      }
      break;
    case HttpRequestParser::State::kDone:
      Dispatch();
      break;
    case HttpRequestParser::State::kFailed:
      GiveError(parser_->status(), parser_->reason());
      break;
  }
}

void HttpConnection::OnBodyToCome() {
  if (core_->options.refuse && parser_->keeps_body()) {
    if (auto refusal = core_->options.refuse(parser_->head())) {
      return GiveLast(*std::move(refusal));
    }
  }
  phase_ = Phase::kBody;
  read_deadline_ = After(core_->options.body_seconds);
  WatchTime();
  if (parser_->expects_continue()) {
    queue_.emplace_back("HTTP/1.1 100 Continue\r\n\r\n");
    StartWriting();
  }
}

void HttpConnection::Dispatch() {
  phase_ = Phase::kAnswering;
  read_deadline_ = Clock::time_point::max();
  HttpRequest request = parser_->Take();
  request.peer = peer_;
  keep_alive_ = parser_->keep_alive();
  http10_ = parser_->http10();
  head_only_ = request.method == "HEAD";
  chunked_ = false;
  complete_ = false;
  parser_ = std::make_unique<HttpRequestParser>(core_->options.max_header_bytes, core_->options.max_body_bytes);
  const auto self = shared_from_this();
  answer_ = std::make_shared<HttpAnswer>(
      core_->options.max_backlog_bytes, [self] { self->Wake(); },
      [self](std::function<void()> task) {
        asio::post(self->socket_.get_executor(), [self, task = std::move(task)] { self->RunTask(task); });
      });
  core_->handler(std::move(request), MakeHttpResponder(answer_));
}

void HttpConnection::FinishAnswer() {
  answer_->Disconnect();  // lets go of this connection
  answer_.reset();
  if (!keep_alive_ || end_of_requests_ || core_->draining) {
    return Part();
  }
  phase_ = Phase::kIdle;
  read_deadline_ = After(core_->options.idle_seconds);
  WatchTime();
  Advance();
  Read();
}

void HttpConnection::GiveError(int status, const std::string& reason) {
  HttpResponse response;
  if (core_->options.error_response) {
    response = core_->options.error_response(status, reason);
  } else {
    response.content_type = "text/plain; charset=utf-8";
    response.body = reason + "\n";
  }
  response.status = status;
  GiveLast(std::move(response));
}

void HttpConnection::GiveLast(HttpResponse response) {
  HttpHeadForm form;
  form.length = response.body.size();
  form.keep_alive = false;
  queue_.push_back(FormatHttpHead(response, form));
  queue_.push_back(std::move(response.body));
  phase_ = Phase::kParting;
  read_deadline_ = Clock::time_point::max();
  in_.clear();
  StartWriting();
}

void HttpConnection::Part() {
  phase_ = Phase::kParting;
  in_.clear();
  error_code error;
  socket_.shutdown(asio::socket_base::shutdown_send, error);
  if (error || end_of_requests_) {
    return Close(false);
  }
  read_deadline_ = After(kPartingSeconds);
  WatchTime();
  Read();
}

void HttpConnection::Close(bool reset) {
  if (phase_ == Phase::kClosed) {
    return;
  }
  phase_ = Phase::kClosed;
  error_code ignored;
  if (reset) {
    // So that a client does not take half an answer for a whole one, and the kernel drops what nobody reads.
    socket_.set_option(asio::socket_base::linger(true, 0), ignored);
  }
  socket_.close(ignored);
  timer_.cancel();
  if (const auto answer = std::exchange(answer_, nullptr)) {
    answer->Disconnect();
  }
}

void HttpConnection::WatchTime() {
  const auto due = std::min(read_deadline_, write_deadline_);
  if (phase_ == Phase::kClosed || due >= timer_set_to_) {
    return;
  }
  timer_set_to_ = due;
  timer_.expires_at(due);
  timer_.async_wait([self = shared_from_this()](const error_code& error) {
    if (!error) {
      self->OnTime();
    }
  });
}

void HttpConnection::OnTime() {
  const auto now = Clock::now();
  // A timer that was set anew just as it went off comes twice; the first to come finds nothing due and sets it again.
  timer_set_to_ = Clock::time_point::max();
  if (phase_ == Phase::kClosed) {
    return;
  }
  if (write_deadline_ <= now) {
    return Close(true);
  }
  if (read_deadline_ <= now) {
    if (phase_ != Phase::kHeader && phase_ != Phase::kBody) {
      return Close(false);
    }
    const bool header = phase_ == Phase::kHeader;
    const auto& options = core_->options;
    GiveError(408, fmt::format("the request's {} did not come within {} s", header ? "header" : "body",
                               header ? options.header_seconds : options.body_seconds));
  }
  WatchTime();
}

}  // namespace espalier
