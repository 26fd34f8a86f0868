// One HTTP/1 request from the bytes of a connection: Beast's grammar, and before it what Beast lets through or leaves
// unbounded (the header as a whole, bare CR or LF, folded lines, a second Transfer-Encoding, a missing Host).
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "server/http_server.h"

namespace espalier {

// Not thread-safe.
class HttpRequestParser {
 public:
  HttpRequestParser(size_t max_header_bytes, size_t max_body_bytes);
  ~HttpRequestParser();

  enum class State {
    kNothing,  // no byte of a request yet
    kHeader,
    kBody,
    kDone,    // Take() it
    kFailed,  // status() and reason() say why; what follows on the connection cannot be understood
  };

  // `bytes` is all that came and was not consumed yet. Returns how many of them are consumed now; bytes of a header
  // that is not complete are not. REQUIRES: state() is neither kDone nor kFailed.
  size_t Feed(std::string_view bytes);

  State state() const { return state_; }
  // REQUIRES: kFailed
  int status() const { return status_; }  // 400, 413 or 431
  const std::string& reason() const { return reason_; }

  // REQUIRES: kBody or kDone
  const HttpRequest& head() const;  // the request; of its body what has come so far
  bool keeps_body() const;          // not with GET, HEAD and OPTIONS, where it has no meaning
  bool http10() const;
  bool keep_alive() const;
  bool expects_continue() const;

  // The request, without its peer. REQUIRES: kDone
  HttpRequest Take();

 private:
  struct Message;  // on Beast's parser

  size_t FeedHeader(std::string_view bytes);
  size_t FeedMessage(std::string_view bytes);
  void CheckHeader();
  void Fail(int status, std::string reason);

  const size_t max_header_bytes_;
  State state_ = State::kNothing;
  size_t scanned_ = 0;  // bytes of the header that were looked at before
  int status_ = 0;
  std::string reason_;
  std::unique_ptr<Message> message_;
};

}  // namespace espalier
