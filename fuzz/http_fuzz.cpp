// Any bytes from a socket: requests that are whole and in bounds, or one error with its status; the same ones however
// the network cuts the bytes. What a request says must not break out of the head of an answer that repeats it.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "server/http_head.h"
#include "server/http_parser.h"

using namespace espalier;  // NOLINT: a fuzz target is about one library

namespace {

// Small, so that inputs reach them.
constexpr size_t kMaxHeaderBytes = 512;
constexpr size_t kMaxBodyBytes = 256;

// A request, or that the next one is refused.
struct Event {
  HttpRequest request;
  bool keep_alive = false;
  bool http10 = false;
  bool expects_continue = false;
  int status = 0;  // of what is refused
  // Beast looks at a chunk's extensions anew with every byte that comes, and counts the chunk against the body's limit
  // each time: by the cut such a request is refused for its size, for its extensions or while it still goes on. Refused
  // it is in any case, unless it ends before.
  bool depends_on_cut = false;

  friend bool operator==(const Event& a, const Event& b) {
    return a.request.method == b.request.method && a.request.path == b.request.path &&
           a.request.query == b.request.query && a.request.headers == b.request.headers &&
           a.request.body == b.request.body && a.keep_alive == b.keep_alive && a.http10 == b.http10 &&
           a.expects_continue == b.expects_continue && a.status == b.status;
  }
};

Event Failure(const HttpRequestParser& parser) {
  const std::string& reason = parser.reason();
  ESPALIER_CHECK(parser.status() == 400 || parser.status() == 413 || parser.status() == 431);
  ESPALIER_CHECK(!reason.empty() && reason.find('\n') == std::string::npos);
  return {.status = parser.status(),
          .depends_on_cut = parser.status() == 413 || reason.find("extension") != std::string::npos};
}

void CheckSame(std::vector<Event> a, std::vector<Event> b) {
  const auto depends = [](const std::vector<Event>& events) { return !events.empty() && events.back().depends_on_cut; };
  if (depends(a) || depends(b)) {
    const size_t both = std::min(a.size() - (depends(a) ? 1 : 0), b.size() - (depends(b) ? 1 : 0));
    a.resize(std::min(a.size(), both));
    b.resize(std::min(b.size(), both));
  }
  ESPALIER_CHECK(a == b);
}

void CheckHead(const HttpRequest& request) {
  HttpResponse response;
  response.content_type = request.path;
  response.headers = {{"X-Query", request.query}, {"X-Path", request.path}};
  for (const auto& [name, value] : request.headers) {
    response.headers.emplace_back("X-" + name, value);
  }
  const std::string head = FormatHttpHead(response, {});
  ESPALIER_CHECK(head.find("\r\n\r\n") == head.size() - 4);
  size_t lines = 0;
  for (size_t at = head.find('\n'); at != std::string::npos; at = head.find('\n', at + 1)) {
    ESPALIER_CHECK(head[at - 1] == '\r');
    ++lines;
  }
  // Status, Date, Server, Content-Type, Content-Length and the empty line.
  ESPALIER_CHECK(lines <= response.headers.size() + 6);
}

void CheckRequest(const HttpRequest& request) {
  ESPALIER_CHECK(!request.method.empty() && request.method.size() <= kMaxHeaderBytes);
  ESPALIER_CHECK(request.path.front() == '/' && request.path.find('\0') == std::string::npos);
  ESPALIER_CHECK(request.query.find_first_of(" \r\n") == std::string::npos);
  ESPALIER_CHECK(request.body.size() <= kMaxBodyBytes);
  size_t bytes = request.method.size() + request.path.size() + request.query.size();
  for (const auto& [name, value] : request.headers) {
    ESPALIER_CHECK(!name.empty() && name.find_first_of(": \t\r\n") == std::string::npos);
    ESPALIER_CHECK(value.find_first_of(std::string_view("\r\n\0", 3)) == std::string::npos);
    bytes += name.size() + value.size();
  }
  ESPALIER_CHECK(bytes <= kMaxHeaderBytes);
  CheckHead(request);
}

// As a connection reads: what is not consumed waits for the bytes that follow. `cut` bytes at a time.
std::vector<Event> Receive(std::string_view sent, size_t cut) {
  std::vector<Event> events;
  auto parser = std::make_unique<HttpRequestParser>(kMaxHeaderBytes, kMaxBodyBytes);
  std::string waiting;
  for (size_t from = 0; from < sent.size(); from += cut) {
    waiting += sent.substr(from, cut);
    for (bool more = true; more;) {
      const size_t consumed = parser->Feed(waiting);
      ESPALIER_CHECK(consumed <= waiting.size());
      waiting.erase(0, consumed);
      ESPALIER_CHECK(waiting.size() <= kMaxHeaderBytes + cut || parser->state() == HttpRequestParser::State::kDone ||
                     parser->state() == HttpRequestParser::State::kFailed);
      more = parser->state() == HttpRequestParser::State::kDone;
      if (parser->state() == HttpRequestParser::State::kFailed) {
        events.push_back(Failure(*parser));
        return events;
      }
      if (more) {
        Event& event = events.emplace_back();
        event.keep_alive = parser->keep_alive();
        event.http10 = parser->http10();
        event.expects_continue = parser->expects_continue();
        event.request = parser->Take();
        parser = std::make_unique<HttpRequestParser>(kMaxHeaderBytes, kMaxBodyBytes);
      }
    }
  }
  return events;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) {
    return 0;
  }
  const std::string_view sent(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::vector<Event> whole = Receive(sent, sent.size() + 1);
  for (const Event& event : whole) {
    if (event.status == 0) {
      CheckRequest(event.request);
    }
  }
  CheckSame(Receive(sent, 1), whole);
  CheckSame(Receive(sent, size_t{data[0]} + 2), whole);
  return 0;
}
