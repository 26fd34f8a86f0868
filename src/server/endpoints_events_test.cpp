#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "server/endpoints.h"
#include "server/endpoints_fakes_for_test.h"

namespace espalier {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Json = nlohmann::json;

// The numbers of the events in a stream's body.
std::vector<uint64_t> NumbersOf(const std::string& body) {
  constexpr std::string_view kBegin = "data: ";
  std::vector<uint64_t> numbers;
  for (size_t at = 0; at < body.size();) {
    const size_t end = body.find("\n\n", at);
    EXPECT_EQ(body.substr(at, kBegin.size()), kBegin);
    EXPECT_NE(end, std::string::npos);
    if (end == std::string::npos) {
      break;
    }
    numbers.push_back(Json::parse(body.substr(at + kBegin.size(), end - at - kBegin.size()))["number"]);
    at = end + 2;
  }
  return numbers;
}

class EventsTest : public ::testing::Test {
 protected:
  void SetUp() override { served_.loop = &loop_; }

  void AddEvents(int n) {
    for (int i = 0; i < n; ++i) {
      ServingEvent event;
      event.text = "line\nbreak";
      loop_.log.Add(event);
    }
  }
  std::shared_ptr<FakeResponder> Ask(const std::string& query, const std::string& accept = "*/*") {
    auto responder = std::make_shared<FakeResponder>(&ended_);
    HttpRequest request;
    request.query = query;
    request.headers = {{"accept", accept}};
    AnswerEvents(served_, request, responder);
    return responder;
  }
  std::shared_ptr<FakeResponder> Follow(const std::string& query = "") { return Ask(query, "Text/Event-Stream"); }

  FakeLoop loop_;
  Served served_;
  std::atomic<int> ended_ = 0;
};

TEST_F(EventsTest, ListsThoseAfterANumber) {
  AddEvents(3);
  const Json all = Json::parse(Ask("")->body());
  ASSERT_EQ(all["events"].size(), 3u);
  EXPECT_EQ(all["events"][0]["number"], 1);
  EXPECT_EQ(all["last"], 3);
  const Json later = Json::parse(Ask("x=9&after=2")->body());
  ASSERT_EQ(later["events"].size(), 1u);
  EXPECT_EQ(later["events"][0]["number"], 3);
}

// So a client sees that the server began anew.
TEST_F(EventsTest, TellsTheLastNumberAlsoWhereNothingIsNew) {
  AddEvents(2);
  const Json answer = Json::parse(Ask("after=1000")->body());
  EXPECT_THAT(answer["events"], IsEmpty());
  EXPECT_EQ(answer["last"], 2);
}

TEST_F(EventsTest, RefusesWhatIsNoNumber) {
  for (const char* query : {"after=", "after=-1", "after=1x", "after=99999999999999999999", "after=%31"}) {
    const auto responder = Ask(query);
    EXPECT_EQ(responder->head().status, 400) << query;
    EXPECT_EQ(Json::parse(responder->body())["error"]["param"], "after") << query;
  }
}

TEST_F(EventsTest, StreamsTheOldAndThenTheNew) {
  AddEvents(3);
  const auto responder = Follow("after=1");
  EXPECT_EQ(responder->head().content_type, "text/event-stream; charset=utf-8");
  EXPECT_THAT(NumbersOf(responder->body()), ElementsAre(2, 3));
  AddEvents(2);
  EXPECT_THAT(NumbersOf(responder->body()), ElementsAre(2, 3, 4, 5));
}

TEST_F(EventsTest, BeginsTheStreamBeforeTheFirstEvent) {
  const auto responder = Follow();
  EXPECT_TRUE(responder->begun());
  EXPECT_EQ(responder->body(), "");
}

TEST_F(EventsTest, StreamsToSeveral) {
  const auto one = Follow();
  const auto other = Follow();
  AddEvents(1);
  EXPECT_THAT(NumbersOf(one->body()), ElementsAre(1));
  EXPECT_THAT(NumbersOf(other->body()), ElementsAre(1));
}

TEST_F(EventsTest, KeepsTheResponderWhileTheClientIsThereAndNoLonger) {
  std::weak_ptr<FakeResponder> weak = Follow();
  ASSERT_FALSE(weak.expired());
  weak.lock()->Disconnect();
  EXPECT_TRUE(weak.expired());
  EXPECT_EQ(ended_, 1);
  AddEvents(1);  // to nobody
}

TEST_F(EventsTest, UnsubscribesAClientThatWasGoneBefore) {
  auto responder = std::make_shared<FakeResponder>(&ended_);
  responder->Disconnect();
  HttpRequest request;
  request.headers = {{"Accept", "text/event-stream"}};
  AnswerEvents(served_, request, responder);
  responder.reset();
  EXPECT_EQ(ended_, 1);
}

// A client that asks the log as it ends, as one would that logs the end of connections.
class AskingResponder final : public HttpResponder {
 public:
  AskingResponder(EventLog& log, std::function<void()>* callback) : log_(log), callback_(callback) {}
  ~AskingResponder() override { log_.last_number(); }
  void Send(HttpResponse /*response*/) override {}
  void Begin(HttpResponse /*head*/) override {}
  bool Write(std::string /*part*/) override { return true; }
  void End() override {}
  void OnDisconnect(std::function<void()> callback) override { *callback_ = std::move(callback); }
  void Post(std::function<void()> task) override { task(); }
  bool disconnected() const override { return false; }

 private:
  EventLog& log_;
  std::function<void()>* callback_;
};

TEST_F(EventsTest, EndsNoResponderUnderTheLogsLock) {
  std::function<void()> disconnect;
  HttpRequest request;
  request.headers = {{"Accept", "text/event-stream"}};
  AnswerEvents(served_, request, std::make_shared<AskingResponder>(loop_.log, &disconnect));
  disconnect();  // hangs if the lock is held
}

// A stream that begins while something happens.
class EventfulResponder final : public HttpResponder {
 public:
  explicit EventfulResponder(EventLog& log) : log_(log) {}
  void Send(HttpResponse /*response*/) override {}
  void Begin(HttpResponse head) override {
    log_.Add({});
    body = head.body;
    log_.Add({});
  }
  bool Write(std::string part) override {
    if (std::exchange(eventful, false)) {
      log_.Add({});
    }
    body += part;
    return true;
  }
  void End() override {}
  void OnDisconnect(std::function<void()> callback) override { disconnect = std::move(callback); }
  void Post(std::function<void()> task) override { task(); }
  bool disconnected() const override { return false; }

  std::string body;
  std::function<void()> disconnect;
  bool eventful = true;  // at the first Write, too

 private:
  EventLog& log_;
};

TEST_F(EventsTest, TellsWhatHappensWhileTheOldIsWritten) {
  AddEvents(2);
  const auto responder = std::make_shared<EventfulResponder>(loop_.log);
  HttpRequest request;
  request.headers = {{"Accept", "text/event-stream"}};
  AnswerEvents(served_, request, responder);
  responder->eventful = false;
  AddEvents(1);
  EXPECT_THAT(NumbersOf(responder->body), ElementsAre(1, 2, 3, 4, 5, 6));
  responder->disconnect();
}

// Every time the stream turns to the log, something has just happened.
TEST_F(EventsTest, TellsOnceWhatHappensBetweenSubscribingAndAskingForTheOld) {
  loop_.on_events = [&] { AddEvents(1); };
  const auto responder = Follow();
  loop_.on_events = nullptr;
  const uint64_t last = loop_.log.last_number();
  ASSERT_GE(last, 2u);
  std::vector<uint64_t> all;
  for (uint64_t number = 1; number <= last; ++number) {
    all.push_back(number);
  }
  EXPECT_EQ(NumbersOf(responder->body()), all);
}

TEST_F(EventsTest, LosesAndDoublesNothingWhileClientsComeAndGo) {
  std::atomic<bool> done = false;
  std::thread engine([&] {
    for (int i = 0; i < 20000; ++i) {
      loop_.log.Add({});
    }
    done = true;
  });
  int clients = 0;
  bool right = true;
  for (; right && (!done || clients == 0); ++clients) {
    const uint64_t after = loop_.log.last_number();
    const auto client = Follow("after=" + std::to_string(after));
    client->Disconnect();
    EXPECT_FALSE(client->written_before_begin());
    uint64_t expected = after;
    for (const uint64_t number : NumbersOf(client->body())) {
      right &= number == ++expected;
    }
  }
  engine.join();
  EXPECT_TRUE(right);
  EXPECT_EQ(ended_, clients);
}

}  // namespace
}  // namespace espalier
