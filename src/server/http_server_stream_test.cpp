// Answers that grow, clients that leave, and the end of the server.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "server/http_client_for_test.h"
#include "server/http_server.h"

namespace espalier {
namespace {

const std::string kGet = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
const HttpResponse kStream = {200, "text/event-stream", {}, ""};

// Keeps what it is given, for the test to answer.
class Desk {
 public:
  HttpHandler handler() {
    return [this](HttpRequest request, std::shared_ptr<HttpResponder> responder) {
      responder->OnDisconnect([this] { ++disconnects; });
      const std::lock_guard lock(mutex_);
      paths_.push_back(std::move(request.path));
      responders_.push_back(std::move(responder));
    };
  }
  // The responder of the i-th request; waits for it.
  std::shared_ptr<HttpResponder> at(size_t i) {
    EXPECT_TRUE(Eventually([&] { return size() > i; }));
    const std::lock_guard lock(mutex_);
    return responders_.at(i);
  }
  size_t size() {
    const std::lock_guard lock(mutex_);
    return responders_.size();
  }
  std::vector<std::shared_ptr<HttpResponder>> TakeAll() {
    const std::lock_guard lock(mutex_);
    return std::exchange(responders_, {});
  }

  std::atomic<int> disconnects = 0;

 private:
  std::mutex mutex_;
  std::vector<std::string> paths_;
  std::vector<std::shared_ptr<HttpResponder>> responders_;
};

TEST(HttpStream, PartsArriveWhileTheAnswerIsGoingOn) {
  Desk desk;
  const auto server = StartForTest(desk.handler());
  RawClient client(server->port());
  client.Send(kGet);
  const auto responder = desk.at(0);
  responder->Begin({200, "text/event-stream", {}, "first;"});
  EXPECT_TRUE(client.ReadUntil("first;").find("Transfer-Encoding: chunked\r\n") != std::string::npos);
  EXPECT_EQ(client.ReadUntil("\r\n"), "\r\n");
  EXPECT_TRUE(responder->Write("second"));
  EXPECT_EQ(client.ReadUntil("second\r\n"), "6\r\nsecond\r\n");
  EXPECT_TRUE(responder->Write(""));  // must not look like the last chunk
  EXPECT_TRUE(responder->Write("third"));
  EXPECT_EQ(client.ReadUntil("third\r\n"), "5\r\nthird\r\n");
  responder->End();
  EXPECT_EQ(client.ReadUntil("0\r\n\r\n"), "0\r\n\r\n");
  client.Send(kGet);
  desk.at(1)->Send({});
  EXPECT_EQ(client.ReadAnswer().status, 200);
  EXPECT_EQ(desk.disconnects, 0);
}

TEST(HttpStream, ForHttp10TheStreamEndsWithTheConnection) {
  Desk desk;
  const auto server = StartForTest(desk.handler());
  RawClient client(server->port());
  client.Send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const auto responder = desk.at(0);
  responder->Begin(kStream);
  EXPECT_TRUE(responder->Write("a"));
  EXPECT_TRUE(responder->Write("b"));
  responder->End();
  const RawAnswer answer = client.ReadAnswer();
  EXPECT_EQ(answer.header("Transfer-Encoding"), "");
  EXPECT_EQ(answer.header("Connection"), "close");
  EXPECT_EQ(answer.body, "ab");
  EXPECT_TRUE(answer.complete);
}

TEST(HttpStream, CallsOutOfOrderChangeNothing) {
  Desk desk;
  const auto server = StartForTest(desk.handler());
  RawClient client(server->port());
  client.Send(kGet + kGet);
  const auto responder = desk.at(0);
  EXPECT_FALSE(responder->Write("too early"));
  responder->End();
  responder->Send({200, "text/plain", {}, "one"});
  responder->Send({200, "text/plain", {}, "two"});
  responder->Begin(kStream);
  EXPECT_FALSE(responder->Write("too late"));
  responder->End();
  EXPECT_EQ(client.ReadAnswer().body, "one");
  desk.at(1)->Send({200, "text/plain", {}, "next"});
  EXPECT_EQ(client.ReadAnswer().body, "next");
}

TEST(HttpStream, PartsOfManyThreadsArriveWholeAndInEachThreadsOrder) {
  Desk desk;
  HttpServerOptions options;
  options.max_backlog_bytes = size_t{1} << 30;
  const auto server = StartForTest(desk.handler(), options);
  RawClient client(server->port());
  client.Send(kGet);
  const auto responder = desk.at(0);
  responder->Begin(kStream);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 5000; ++i) {
        EXPECT_TRUE(responder->Write(std::to_string(t) + ":" + std::to_string(i) + "\n"));
      }
    });
  }
  std::thread end([&] {
    for (std::thread& thread : threads) {
      thread.join();
    }
    responder->End();
  });
  const RawAnswer answer = client.ReadAnswer();
  end.join();
  EXPECT_TRUE(answer.complete);
  int next[4] = {};
  for (size_t at = 0; at < answer.body.size();) {
    const int thread = answer.body[at] - '0';
    ASSERT_TRUE(thread >= 0 && thread < 4);
    const std::string expected = std::to_string(thread) + ":" + std::to_string(next[thread]++) + "\n";
    ASSERT_EQ(answer.body.substr(at, expected.size()), expected);
    at += expected.size();
  }
  EXPECT_EQ(next[0] + next[1] + next[2] + next[3], 20000);
}

TEST(HttpStream, AnswersFarLargerThanTheSocketsBuffersArriveWhole) {
  std::string large(size_t{24} * 1024 * 1024, 'x');
  for (size_t i = 0; i < large.size(); i += 1000) {
    large[i] = static_cast<char>('a' + (i / 1000) % 26);
  }
  const auto server = StartForTest([&](HttpRequest request, const std::shared_ptr<HttpResponder>& responder) {
    responder->Send({200, "text/plain", {}, request.method == "POST" ? std::move(request.body) : large});
  });
  RawClient client(server->port());
  client.Send(kGet);
  EXPECT_TRUE(client.ReadAnswer().body == large);
  client.Send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: " + std::to_string(large.size()) + "\r\n\r\n");
  client.Send(large);
  EXPECT_TRUE(client.ReadAnswer().body == large);
}

TEST(HttpStream, RequestsBeyondWhatIsReadAheadWaitAndAreNotLost) {
  Desk desk;
  const auto server = StartForTest(desk.handler());
  RawClient client(server->port());
  const std::string body(300000, 'x');
  const std::string post =
      "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  std::thread sender([&] { client.Send(kGet + post + post + kGet); });
  for (size_t i = 0; i < 4; ++i) {
    desk.at(i)->Send({200, "text/plain", {}, std::to_string(i)});
    EXPECT_EQ(client.ReadAnswer().body, std::to_string(i));
  }
  sender.join();
}

TEST(HttpDisconnect, IsNoticedWhileNothingIsWritten) {
  const std::vector<std::function<void(RawClient&)>> ways = {
      [](RawClient& client) { client.Close(); },
      [](RawClient& client) { client.Reset(); },
      [](RawClient& client) { client.HalfClose(); },
      [](RawClient& client) {
        client.Send(kGet + "GET /half");
        client.Close();
      },
  };
  for (const bool begun : {false, true}) {
    for (const auto& leave : ways) {
      Desk desk;
      const auto server = StartForTest(desk.handler());
      RawClient client(server->port());
      client.Send(kGet);
      const auto responder = desk.at(0);
      if (begun) {
        responder->Begin(kStream);
        EXPECT_NE(client.ReadUntil("\r\n\r\n"), "");
      }
      EXPECT_FALSE(responder->disconnected());
      EXPECT_EQ(desk.disconnects, 0);
      leave(client);
      EXPECT_TRUE(Eventually([&] { return desk.disconnects == 1; }));
      EXPECT_TRUE(responder->disconnected());
      EXPECT_FALSE(responder->Write("x"));
      bool at_once = false;
      responder->OnDisconnect([&] { at_once = true; });
      EXPECT_TRUE(at_once);
      responder->End();
      EXPECT_TRUE(Eventually([&] { return server->connections() == 0; }));
      EXPECT_EQ(desk.size(), 1u);
    }
  }
}

TEST(HttpDisconnect, AnAnswerThatIsCompleteStillReachesAClientThatClosedItsSendingSide) {
  const std::string large(size_t{8} * 1024 * 1024, 'x');
  std::atomic<int> disconnects = 0;
  const auto server = StartForTest([&](const HttpRequest&, const std::shared_ptr<HttpResponder>& responder) {
    responder->OnDisconnect([&] { ++disconnects; });
    responder->Send({200, "text/plain", {}, large});
  });
  RawClient client(server->port());
  client.Send(kGet);
  EXPECT_NE(client.ReadUntil("\r\n\r\n"), "");
  client.HalfClose();
  EXPECT_EQ(client.ReadToEnd().size(), large.size());
  EXPECT_TRUE(Eventually([&] { return server->connections() == 0; }));
  EXPECT_EQ(disconnects, 0);
}

TEST(HttpDisconnect, AClientThatDoesNotReadIsGoneWhenTooMuchWaits) {
  Desk desk;
  HttpServerOptions options;
  options.max_backlog_bytes = 100000;
  const auto server = StartForTest(desk.handler(), options);
  RawClient client;
  client.ShrinkReceiveBuffer();
  client.Connect(server->port());
  client.Send(kGet);
  const auto responder = desk.at(0);
  responder->Begin(kStream);
  EXPECT_TRUE(responder->Write(std::string(200000, 'x')));  // one part alone may be larger
  // The kernel takes some megabytes by itself.
  const std::string part(10000, 'x');
  EXPECT_TRUE(Eventually([&] { return !responder->Write(part); }));
  EXPECT_TRUE(Eventually([&] { return desk.disconnects == 1; }));
  EXPECT_TRUE(responder->disconnected());
  EXPECT_TRUE(client.EndsWithReset());
  EXPECT_TRUE(Eventually([&] { return server->connections() == 0; }));
}

TEST(HttpDisconnect, AClientThatTakesNothingForTooLongIsGone) {
  Desk desk;
  HttpServerOptions options;
  options.write_seconds = 0.2;
  options.max_backlog_bytes = size_t{1} << 30;
  const auto server = StartForTest(desk.handler(), options);
  RawClient client;
  client.ShrinkReceiveBuffer();
  client.Connect(server->port());
  client.Send(kGet);
  const auto responder = desk.at(0);
  responder->Begin(kStream);
  EXPECT_TRUE(responder->Write(std::string(size_t{32} * 1024 * 1024, 'x')));
  EXPECT_TRUE(Eventually([&] { return desk.disconnects == 1; }));
  EXPECT_TRUE(Eventually([&] { return server->connections() == 0; }));
}

TEST(HttpDisconnect, AResponderThatIsDroppedClosesTheConnection) {
  const auto server = StartForTest([](const HttpRequest& request, const std::shared_ptr<HttpResponder>& responder) {
    if (request.path == "/begun") {
      responder->Begin({200, "text/plain", {}, "half of it"});
    }
  });
  for (const std::string path : {"/", "/begun"}) {
    RawClient client(server->port());
    client.Send("GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT_FALSE(client.ReadAnswer().complete);
  }
  EXPECT_TRUE(Eventually([&] { return server->connections() == 0; }));
}

TEST(HttpDisconnect, ACallbackMayOwnItsResponder) {
  std::mutex mutex;
  std::vector<std::weak_ptr<HttpResponder>> left;
  const auto has = [&](size_t count) {
    const std::lock_guard lock(mutex);
    return left.size() == count;
  };
  const auto gone = [&](size_t i) {
    const std::lock_guard lock(mutex);
    return left.at(i).expired();
  };
  {
    const auto server = StartForTest([&](const HttpRequest& request, const std::shared_ptr<HttpResponder>& responder) {
      responder->OnDisconnect([responder] { responder->End(); });
      {
        const std::lock_guard lock(mutex);
        left.push_back(responder);
      }
      if (request.path == "/") {
        responder->Send({});
      }
    });
    RawClient client(server->port());
    client.Send(kGet);
    EXPECT_EQ(client.ReadAnswer().status, 200);
    EXPECT_TRUE(Eventually([&] { return gone(0); }));
    client.Send("GET /never HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT_TRUE(Eventually([&] { return has(2); }));
    EXPECT_FALSE(gone(1));
  }
  EXPECT_TRUE(gone(1));
}

}  // namespace
}  // namespace espalier
