#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/quote.h"
#include "server/endpoints.h"
#include "server/endpoints_parts.h"
#include "server/state_json.h"

namespace espalier {
namespace {

// The value of ?name=...; empty if there is none of that name.
std::optional<std::string_view> QueryValue(std::string_view query, std::string_view name) {
  while (!query.empty()) {
    const size_t end = std::min(query.find('&'), query.size());
    const std::string_view pair = query.substr(0, end);
    query.remove_prefix(std::min(end + 1, query.size()));
    if (pair.substr(0, name.size()) == name && pair.substr(name.size(), 1) == "=") {
      return pair.substr(name.size() + 1);
    }
  }
  return std::nullopt;
}

ApiResult<uint64_t> ReadAfter(std::string_view query) {
  const std::string_view text = QueryValue(query, "after").value_or("0");
  uint64_t after = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), after);
  if (error != std::errc() || rest != text.data() + text.size()) {
    return InvalidRequest("after", fmt::format("query 'after': expected the number of an event, found {}",
                                               Quote(std::string(text.substr(0, 64)))));
  }
  return after;
}

bool WantsStream(std::string_view accept) {
  std::string lower(accept);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower.find("text/event-stream") != std::string::npos;
}

std::string StreamPart(const ServingEvent& event) { return fmt::format("data: {}\n\n", Dump(EventJson(event))); }

// One client of the stream. The log's listener owns it, and it owns the responder; the responder's callback only has a
// weak pointer back, so nothing owns itself.
//
// Events that are added while the older ones are being written wait in `early_`. Rejected: to hold a lock over
// Subscribe, Since and Begin, which the listener takes, too. The log calls listeners with its own lock held, so that
// would be the two locks in both orders.
class EventStream {
 public:
  explicit EventStream(std::shared_ptr<HttpResponder> responder) : responder_(std::move(responder)) {}

  // The log's listener: calls come one after another, on any thread. Blocks for no longer than a push_back.
  void Add(const ServingEvent& event) {
    {
      const std::lock_guard lock(mutex_);
      if (!live_) {
        early_.push_back(event);
        return;
      }
    }
    // A client that is gone, or dropped because it does not read, unsubscribes by OnDisconnect.
    responder_->Write(StreamPart(event));
  }

  // `old`: all that the log had after Add could be called; oldest first.
  void Begin(const std::vector<ServingEvent>& old) {
    HttpResponse head;
    head.content_type = "text/event-stream; charset=utf-8";
    head.headers.emplace_back("Cache-Control", "no-cache");
    for (const ServingEvent& event : old) {
      head.body += StreamPart(event);
    }
    responder_->Begin(std::move(head));
    const uint64_t last = old.empty() ? 0 : old.back().number;
    for (;;) {
      std::vector<ServingEvent> early;
      {
        const std::lock_guard lock(mutex_);
        if (early_.empty()) {
          live_ = true;
          return;
        }
        early.swap(early_);
      }
      for (const ServingEvent& event : early) {
        if (event.number > last) {
          responder_->Write(StreamPart(event));
        }
      }
    }
  }

 private:
  const std::shared_ptr<HttpResponder> responder_;
  std::mutex mutex_;  // guards what follows
  bool live_ = false;
  std::vector<ServingEvent> early_;
};

void Stream(EngineLoop& loop, uint64_t after, const std::shared_ptr<HttpResponder>& responder) {
  const auto stream = std::make_shared<EventStream>(responder);
  const uint64_t handle = loop.events().Subscribe([stream](const ServingEvent& event) { stream->Add(event); });
  stream->Begin(loop.events().Since(after));
  // Keeps the stream over Unsubscribe: the responder, which may be the last thing that holds a connection, must not end
  // under the log's lock.
  responder->OnDisconnect([&loop, handle, weak = std::weak_ptr(stream)] {
    const auto last = weak.lock();
    loop.events().Unsubscribe(handle);
  });
}

HttpResponse List(const EventLog& log, uint64_t after) {
  // Asked before the events: a client that goes on after `last` misses none.
  uint64_t last = log.last_number();
  Json events = Json::array();
  for (const ServingEvent& event : log.Since(after)) {
    events.push_back(EventJson(event));
    last = std::max(last, event.number);
  }
  return JsonAnswer({{"events", std::move(events)}, {"last", last}});
}

}  // namespace

void AnswerEvents(const Served& served, const HttpRequest& request, const std::shared_ptr<HttpResponder>& responder) {
  const ApiResult<uint64_t> after = ReadAfter(request.query);
  if (IsError(after)) {
    const auto& error = std::get<ApiError>(after);
    HttpResponse answer;
    answer.status = error.status;
    answer.body = ErrorBody(error);
    responder->Send(std::move(answer));
  } else if (WantsStream(request.header("Accept"))) {
    Stream(*served.loop, std::get<uint64_t>(after), responder);
  } else {
    responder->Send(List(served.loop->events(), std::get<uint64_t>(after)));
  }
}

}  // namespace espalier
