#include "server/http_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <limits>
#include <utility>

#include "server/http_head.h"
#include "server/http_target.h"

namespace espalier {

namespace http = boost::beast::http;
using boost::beast::error_code;
using BeastString = boost::beast::string_view;

namespace {

std::string_view View(BeastString text) { return {text.data(), text.size()}; }

// Looks at bytes[from...] of a header; the byte before `from` was accepted. Null if they are fine so far.
const char* WrongByte(std::string_view bytes, size_t from, size_t end) {
  for (size_t i = from; i < end; ++i) {
    const auto byte = static_cast<unsigned char>(bytes[i]);
    const bool after_cr = i > 0 && bytes[i - 1] == '\r';
    if (after_cr != (byte == '\n')) {
      return "header: CR and LF may only stand together, at the end of a line";
    }
    if ((byte < 0x20 && byte != '\t' && byte != '\r' && byte != '\n') || byte == 0x7f) {
      return "header: control characters are not allowed";
    }
    if ((byte == ' ' || byte == '\t') && (i == 0 || bytes[i - 1] == '\n')) {
      return "header: folded lines are not allowed";
    }
  }
  return nullptr;
}

}  // namespace

struct HttpRequestParser::Message final : http::basic_parser<true> {
  HttpRequest request;
  std::string target;
  bool header_done = false;
  bool is_http10 = false;
  bool keeps_body = true;

  // Fields after the last chunk are dropped: they would come too late for whoever judged the request by its header.
  void on_field_impl(http::field, BeastString name, BeastString value, error_code&) override {
    if (!header_done) {
      request.headers.emplace_back(View(name), View(value));
    }
  }
  void on_request_impl(http::verb, BeastString method, BeastString sent_target, int version, error_code&) override {
    request.method = View(method);
    keeps_body = request.method != "GET" && request.method != "HEAD" && request.method != "OPTIONS";
    target = View(sent_target);
    is_http10 = version < 11;
  }
  void on_header_impl(error_code&) override { header_done = true; }
  size_t on_body_impl(BeastString body, error_code&) override {
    // No room is reserved by Content-Length: a claim costs the client nothing and must cost us nothing either.
    if (keeps_body) {
      request.body.append(body.data(), body.size());
    }
    return body.size();
  }
  size_t on_chunk_body_impl(uint64_t, BeastString body, error_code& error) override {
    return on_body_impl(body, error);
  }
  void on_response_impl(int, BeastString, int, error_code&) override {}
  void on_body_init_impl(const boost::optional<uint64_t>&, error_code&) override {}
  void on_chunk_header_impl(uint64_t, BeastString, error_code&) override {}
  void on_finish_impl(error_code&) override {}
};

HttpRequestParser::HttpRequestParser(size_t max_header_bytes, size_t max_body_bytes)
    : max_header_bytes_(max_header_bytes), message_(std::make_unique<Message>()) {
  // The header's limit is held before Beast sees it; this one is for the lines between chunks, as Beast counts them.
  const size_t most = std::numeric_limits<uint32_t>::max() / 2;
  message_->header_limit(static_cast<uint32_t>(std::clamp<size_t>(max_header_bytes, 16, most)));
  message_->body_limit(max_body_bytes);
  message_->eager(true);
}

HttpRequestParser::~HttpRequestParser() = default;

const HttpRequest& HttpRequestParser::head() const { return message_->request; }
bool HttpRequestParser::keeps_body() const { return message_->keeps_body; }
bool HttpRequestParser::http10() const { return message_->is_http10; }
bool HttpRequestParser::keep_alive() const { return message_->keep_alive(); }

bool HttpRequestParser::expects_continue() const {
  return !http10() && SameHttpName(message_->request.header("expect"), "100-continue");
}

HttpRequest HttpRequestParser::Take() { return std::move(message_->request); }

void HttpRequestParser::Fail(int status, std::string reason) {
  state_ = State::kFailed;
  status_ = status;
  reason_ = std::move(reason);
}

size_t HttpRequestParser::Feed(std::string_view bytes) {
  if (state_ == State::kBody) {
    return FeedMessage(bytes);
  }
  size_t skipped = 0;
  if (state_ == State::kNothing) {
    // Empty lines before a request are some clients' way to end the body of the one before.
    while (bytes.substr(skipped, 2) == "\r\n") {
      skipped += 2;
    }
    bytes.remove_prefix(skipped);
    if (bytes.empty() || bytes == "\r") {
      return skipped;
    }
    state_ = State::kHeader;
  }
  return skipped + FeedHeader(bytes);
}

size_t HttpRequestParser::FeedHeader(std::string_view bytes) {
  const size_t mark = bytes.find("\r\n\r\n", scanned_ < 3 ? 0 : scanned_ - 3);
  const size_t end = mark == std::string_view::npos ? bytes.size() : mark + 4;
  // Judged byte by byte as they come: what is not HTTP at all (TLS, say) learns so now, not when its time is over.
  if (const char* wrong = WrongByte(bytes, scanned_, std::min(end, max_header_bytes_))) {
    Fail(400, wrong);
    return 0;
  }
  if (end > max_header_bytes_) {
    Fail(431, fmt::format("the request's header is longer than {} bytes", max_header_bytes_));
    return 0;
  }
  scanned_ = end;
  if (mark == std::string_view::npos) {
    return 0;
  }
  message_->header_limit(static_cast<uint32_t>(std::max<size_t>(end, 16)));
  const size_t consumed = FeedMessage(bytes.substr(0, end));
  if (state_ == State::kFailed) {
    return consumed;
  }
  if (!message_->header_done || consumed != end) {
    Fail(400, "header: not HTTP/1.1");
    return consumed;
  }
  CheckHeader();
  if (state_ == State::kBody && bytes.size() > end) {
    return consumed + FeedMessage(bytes.substr(end));
  }
  return consumed;
}

size_t HttpRequestParser::FeedMessage(std::string_view bytes) {
  error_code error;
  const size_t consumed = message_->put(boost::asio::const_buffer(bytes.data(), bytes.size()), error);
  if (error == http::error::body_limit) {
    Fail(413, "the request's body is longer than is allowed here");
  } else if (error && error != http::error::need_more) {
    Fail(400, fmt::format("not a valid HTTP/1.1 request: {}", error.message()));
  } else if (message_->is_done()) {
    state_ = State::kDone;
  } else {
    state_ = message_->header_done ? State::kBody : State::kHeader;
    if (bytes.size() - consumed > max_header_bytes_) {
      Fail(400, "chunked body: a chunk's extensions or the trailer are too long");
    }
  }
  return consumed;
}

void HttpRequestParser::CheckHeader() {
  HttpRequest& request = message_->request;
  int hosts = 0;
  int encodings = 0;
  int lengths = 0;
  for (const auto& [name, value] : request.headers) {
    hosts += SameHttpName(name, "host") ? 1 : 0;
    lengths += SameHttpName(name, "content-length") ? 1 : 0;
    if (SameHttpName(name, "transfer-encoding")) {
      ++encodings;
      if (!SameHttpName(value, "chunked")) {
        return Fail(400, "Transfer-Encoding: only 'chunked' is understood");
      }
    }
  }
  if (encodings > 1 || (encodings > 0 && (lengths > 0 || http10()))) {
    return Fail(400, "Transfer-Encoding may stand only once, without Content-Length, in HTTP/1.1");
  }
  if (hosts > 1 || (hosts == 0 && !http10())) {
    return Fail(400, fmt::format("header: expected one Host, found {}", hosts));
  }
  auto target = ParseHttpTarget(message_->target);
  if (!target.ok()) {
    return Fail(400, target.status().message());
  }
  request.path = std::move(target->path);
  request.query = std::move(target->query);
}

}  // namespace espalier
