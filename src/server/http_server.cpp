#include "server/http_server.h"

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <mutex>
#include <thread>
#include <utility>

#include "server/http_connection.h"
#include "server/http_head.h"
#include "server/http_listener.h"

namespace espalier {

std::string_view HttpRequest::header(std::string_view name) const {
  const auto found = std::find_if(headers.begin(), headers.end(),
                                  [&](const auto& header) { return SameHttpName(header.first, name); });
  return found == headers.end() ? std::string_view() : std::string_view(found->second);
}

namespace {

class Server final : public HttpServer {
 public:
  explicit Server(std::shared_ptr<HttpServerCore> core) : core_(std::move(core)), work_(core_->io.get_executor()) {}
  ~Server() override { Shutdown(); }

  Status Listen() {
    ESPALIER_ASSIGN_OR_RETURN(listeners_, ListenHttp(core_, core_->options.host, core_->options.port, &port_));
    for (const auto& listener : listeners_) {
      listener->Run();
    }
    for (int i = 0; i < std::max(1, core_->options.threads); ++i) {
      threads_.emplace_back([core = core_] { core->io.run(); });
    }
    return Status::Ok();
  }

  uint16_t port() const override { return port_; }
  int connections() const override { return core_->connections; }
  int64_t failed_accepts() const override { return core_->failed_accepts; }

  void StopAccepting() override {
    const std::lock_guard lock(door_mutex_);
    if (!shut_down_) {
      CloseDoorLocked(&HttpConnection::Drain);
    }
  }

  void Shutdown() override {
    {
      const std::lock_guard lock(door_mutex_);
      if (!shut_down_) {
        CloseDoorLocked(&HttpConnection::Abort);
        shut_down_ = true;
        work_.reset();
      }
    }
    // Threads return when nothing is pending any more, not before: what a callback holds is destroyed by being run.
    const std::lock_guard lock(join_mutex_);
    for (std::thread& thread : threads_) {
      thread.join();
    }
    threads_.clear();
  }

 private:
  // No connection is added from now on; those that there are get the message.
  void CloseDoorLocked(void (HttpConnection::*tell)()) {
    for (const auto& listener : listeners_) {
      listener->Close();
    }
    std::vector<std::shared_ptr<HttpConnection>> open;  // outlives the lock, which a connection's end takes
    const std::lock_guard lock(core_->mutex);
    core_->draining = true;
    for (const auto& [key, weak] : core_->open) {
      if (auto connection = weak.lock()) {
        ((*connection).*tell)();
        open.push_back(std::move(connection));
      }
    }
  }

  const std::shared_ptr<HttpServerCore> core_;
  std::vector<std::shared_ptr<HttpListener>> listeners_;
  uint16_t port_ = 0;
  std::mutex door_mutex_;
  // Guarded by door_mutex_; while it is held and shut_down_ is false, the threads run and what is posted gets run too:
  bool shut_down_ = false;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::mutex join_mutex_;
  std::vector<std::thread> threads_;  // guarded by join_mutex_
};

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::Start(const HttpServerOptions& options, HttpHandler handler) {
  auto server = std::make_unique<Server>(std::make_shared<HttpServerCore>(options, std::move(handler)));
  ESPALIER_RETURN_IF_ERROR(server->Listen());
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace espalier
