#include "server/http_listener.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <utility>

namespace espalier {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

// Without descriptors or memory accept() fails at once, again and again, and the client stays in the queue.
constexpr std::chrono::milliseconds kPauseAfterFailure(100);

Status CannotListen(const std::string& host, uint16_t port, const error_code& error) {
  return IoError(fmt::format("cannot listen on host '{}', port {}: {}", host, port, error.message()));
}

Result<std::vector<tcp::endpoint>> Resolve(asio::io_context& io, const std::string& host, uint16_t port) {
  // An address in brackets, as in URLs.
  const bool brackets = host.size() > 2 && host.front() == '[' && host.back() == ']';
  const std::string name = brackets ? host.substr(1, host.size() - 2) : host;
  if (name.empty()) {
    // The resolver would take it for "every address of this machine".
    return IoError(fmt::format("cannot listen on host '', port {}: expected a name or an address", port));
  }
  error_code error;
  tcp::resolver resolver(io);
  const auto found = resolver.resolve(name, std::to_string(port), tcp::resolver::passive, error);
  if (error) {
    return CannotListen(host, port, error);
  }
  std::vector<tcp::endpoint> endpoints;
  for (const auto& entry : found) {
    if (std::find(endpoints.begin(), endpoints.end(), entry.endpoint()) == endpoints.end()) {
      endpoints.push_back(entry.endpoint());
    }
  }
  return endpoints;
}

error_code Bind(HttpListener::Acceptor& acceptor, const tcp::endpoint& endpoint, bool one_of_several) {
  error_code error;
  acceptor.open(endpoint.protocol(), error);
  if (!error) {
    acceptor.set_option(asio::socket_base::reuse_address(true), error);
  }
  if (!error && one_of_several && endpoint.address().is_v6()) {
    acceptor.set_option(asio::ip::v6_only(true), error);
  }
  if (!error) {
    acceptor.bind(endpoint, error);
  }
  if (!error) {
    acceptor.listen(asio::socket_base::max_listen_connections, error);
  }
  return error;
}

}  // namespace

HttpListener::HttpListener(std::shared_ptr<HttpServerCore> core, Acceptor acceptor)
    : core_(std::move(core)), acceptor_(std::move(acceptor)), pause_(acceptor_.get_executor()) {}

void HttpListener::Run() {
  asio::post(acceptor_.get_executor(), [self = shared_from_this()] { self->Accept(); });
}

void HttpListener::Close() {
  asio::post(acceptor_.get_executor(), [self = shared_from_this()] {
    error_code ignored;
    self->acceptor_.close(ignored);
    self->pause_.cancel();
  });
}

void HttpListener::Accept() {
  if (!acceptor_.is_open()) {
    return;
  }
  const HttpStrand strand = asio::make_strand(core_->io);
  acceptor_.async_accept(strand, [self = shared_from_this()](const error_code& error, HttpSocket socket) {
    if (!self->acceptor_.is_open()) {
      return;
    }
    if (!error) {
      HttpConnection::Open(self->core_, std::move(socket));
    }
    if (!error || error == asio::error::connection_aborted) {
      return self->Accept();
    }
    ++self->core_->failed_accepts;
    self->pause_.expires_after(kPauseAfterFailure);
    self->pause_.async_wait([self](const error_code&) { self->Accept(); });
  });
}

Result<std::vector<std::shared_ptr<HttpListener>>> ListenHttp(const std::shared_ptr<HttpServerCore>& core,
                                                              const std::string& host, uint16_t port,
                                                              uint16_t* bound_port) {
  ESPALIER_ASSIGN_OR_RETURN(const std::vector<tcp::endpoint> endpoints, Resolve(core->io, host, port));
  std::vector<std::shared_ptr<HttpListener>> listeners;
  error_code failure = asio::error::host_not_found;
  *bound_port = port;
  for (tcp::endpoint endpoint : endpoints) {
    endpoint.port(*bound_port);
    HttpListener::Acceptor acceptor(asio::make_strand(core->io));
    if (const error_code error = Bind(acceptor, endpoint, endpoints.size() > 1)) {
      // An address that this machine does not have (IPv6 switched off) is no loss beside one that it has. One that
      // somebody else serves is: clients would reach the one or the other.
      if (error == asio::error::address_in_use && port != 0) {
        return CannotListen(host, port, error);
      }
      failure = error;
      continue;
    }
    error_code ignored;
    *bound_port = acceptor.local_endpoint(ignored).port();
    listeners.push_back(std::make_shared<HttpListener>(core, std::move(acceptor)));
  }
  if (listeners.empty()) {
    return CannotListen(host, port, failure);
  }
  return listeners;
}

}  // namespace espalier
