// HTTP/1.1 for an API: parses requests, writes answers, keeps hostile and slow clients from costing more than their
// connection. Knows nothing of what is served. On Boost.Beast and Asio, which nothing outside this layer includes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace espalier {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;  // "GET", as sent
  std::string path;    // decoded, without query; begins with '/'
  std::string query;   // as sent, without '?'
  HttpHeaders headers;
  std::string body;  // empty with GET, HEAD and OPTIONS, where it has no meaning: dropped as it comes
  std::string peer;  // "127.0.0.1:40312"

  // The first header of that name (any case); empty if there is none.
  std::string_view header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json; charset=utf-8";
  HttpHeaders headers;  // besides Content-Type, Content-Length, Connection, Date, Server
  std::string body;
};

// The answer to one request. Thread rule: any thread. One of Send, or Begin + Write* + End; dropping the last reference
// without either closes the connection. Calls out of that order change nothing.
class HttpResponder {
 public:
  virtual ~HttpResponder() = default;
  virtual void Send(HttpResponse response) = 0;
  // Begins a body of unknown length (chunked; until close for HTTP/1.0). `head.body` is its first part.
  virtual void Begin(HttpResponse head) = 0;
  // Parts that pile up are written together. False if nobody receives them any more.
  virtual bool Write(std::string part) = 0;
  virtual void End() = 0;
  // `callback` is called once, on one of the server's threads, if the client goes away before the answer is complete
  // (also if it does not read for too long, or the server is shut down); at once if that has happened already. Not once
  // Send or End was called, though the last bytes may still be on their way. A client that only closes its sending side
  // counts as gone.
  virtual void OnDisconnect(std::function<void()> callback) = 0;
  virtual bool disconnected() const = 0;
  // Runs `task` on the connection's own thread of work: one at a time and in order, also with the handler's call and
  // OnDisconnect's callback. Dropped, not run, once the answer is complete or the client has gone.
  virtual void Post(std::function<void()> task) = 0;
};

using HttpHandler = std::function<void(HttpRequest request, std::shared_ptr<HttpResponder> responder)>;

struct HttpServerOptions {
  std::string host = "127.0.0.1";  // name or address
  uint16_t port = 8080;            // 0: any free one
  int threads = 4;
  int max_connections = 1024;  // further ones get 503 and are closed
  size_t max_header_bytes = 16 * 1024;
  size_t max_body_bytes = size_t{32} * 1024 * 1024;
  size_t max_backlog_bytes = size_t{1} * 1024 * 1024;  // written but not taken by the client: beyond, it is gone
  double header_seconds = 10;                          // for the whole header, from its first byte
  double body_seconds = 60;                            // for the whole body
  double idle_seconds = 75;                            // between two requests of one connection
  double write_seconds = 30;                           // a client that takes nothing for so long is gone
  // Looks at a request, without its peer, when a body that would be kept is still to come. What it returns is the
  // answer, after which the connection is closed. Not set, or nothing: the handler gets the request with its body.
  // Called on one of the server's threads; must not block.
  std::function<std::optional<HttpResponse>(const HttpRequest& head)> refuse;
  // The body of answers that the server itself gives: 400 (not HTTP), 408, 413, 431, 503. Not set: the reason as text.
  std::function<HttpResponse(int status, const std::string& reason)> error_response;
};

class HttpServer {
 public:
  // Listens and serves until Shutdown. kIo naming host, port and reason if it cannot listen. `handler` is called on one
  // of the server's threads for each request, must not block for long, and must outlive the server.
  static Result<std::unique_ptr<HttpServer>> Start(const HttpServerOptions& options, HttpHandler handler);
  virtual ~HttpServer() = default;  // shuts down

  virtual uint16_t port() const = 0;
  virtual int connections() const = 0;
  // How often accept() failed, as it does without descriptors: a client then waits in the system's queue.
  virtual int64_t failed_accepts() const = 0;
  // Takes no new connections and, on the present ones, no new requests after the one that is being answered.
  virtual void StopAccepting() = 0;
  // Closes what is left and joins the threads. REQUIRES: not called on one of them (by a handler or a callback)
  virtual void Shutdown() = 0;
};

}  // namespace espalier
