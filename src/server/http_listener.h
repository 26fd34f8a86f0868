// Listening sockets: where a server's connections come from. Internal, like http_connection.h.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "server/http_connection.h"

namespace espalier {

// Accepts clients at one address until closed. Owned by its pending operation. Thread rule: Run and Close any thread.
class HttpListener : public std::enable_shared_from_this<HttpListener> {
 public:
  using Acceptor = boost::asio::basic_socket_acceptor<boost::asio::ip::tcp, HttpStrand>;

  HttpListener(std::shared_ptr<HttpServerCore> core, Acceptor acceptor);

  void Run();
  void Close();

 private:
  void Accept();

  const std::shared_ptr<HttpServerCore> core_;
  Acceptor acceptor_;
  boost::asio::steady_timer pause_;
};

// One listener for each address of `host` ("localhost" has two), all at the same port: `port`, or one that is free.
// kIo naming host, port and reason if the host has no address, or one of them is in use, or none can be listened at.
Result<std::vector<std::shared_ptr<HttpListener>>> ListenHttp(const std::shared_ptr<HttpServerCore>& core,
                                                              const std::string& host, uint16_t port,
                                                              uint16_t* bound_port);

}  // namespace espalier
