// The end of a server, and that nothing is left of what was.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "server/http_client_for_test.h"
#include "server/http_server.h"

namespace espalier {
namespace {

const std::string kGet = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
const HttpResponse kStream = {200, "text/event-stream", {}, ""};

// Keeps what it is given, for the test to answer.
struct Kept {
  std::mutex mutex;
  std::vector<std::shared_ptr<HttpResponder>> responders;
  std::atomic<int> disconnects = 0;

  HttpHandler handler() {
    return [this](const HttpRequest&, std::shared_ptr<HttpResponder> responder) {
      responder->OnDisconnect([this] { ++disconnects; });
      const std::lock_guard lock(mutex);
      responders.push_back(std::move(responder));
    };
  }
  bool Has(size_t count) {
    return Eventually([&] {
      const std::lock_guard lock(mutex);
      return responders.size() >= count;
    });
  }
};

TEST(HttpShutdown, TellsOpenAnswersAndResponsersMayOutliveIt) {
  Kept kept;
  auto server = StartForTest(kept.handler());
  RawClient waiting(server->port());
  RawClient streaming(server->port());
  RawClient idle(server->port());
  waiting.Send(kGet);
  streaming.Send(kGet);
  ASSERT_TRUE(kept.Has(2));
  for (const auto& responder : kept.responders) {
    responder->Begin(kStream);
  }
  server->Shutdown();
  EXPECT_EQ(kept.disconnects, 2);
  EXPECT_EQ(server->connections(), 0);
  server->Shutdown();
  server->StopAccepting();
  server.reset();
  EXPECT_FALSE(waiting.ReadAnswer().complete);
  EXPECT_EQ(idle.ReadToEnd(), "");
  for (const auto& responder : kept.responders) {
    EXPECT_TRUE(responder->disconnected());
    EXPECT_FALSE(responder->Write("x"));
    bool told = false;
    responder->OnDisconnect([&] { told = true; });
    EXPECT_TRUE(told);
    responder->End();
    responder->Send({});
  }
  kept.responders.clear();
}

TEST(HttpShutdown, ItsPortIsFreeAtOnce) {
  auto server = StartForTest(Echo);
  RawClient client(server->port());
  client.Send(kGet);
  EXPECT_EQ(client.ReadAnswer().status, 200);
  HttpServerOptions options;
  options.port = server->port();
  server.reset();
  const auto again = HttpServer::Start(options, Echo);
  EXPECT_TRUE(again.ok()) << again.status().message();
}

TEST(HttpShutdown, StopAcceptingFinishesWhatIsBeingAnsweredAndNothingElse) {
  Kept kept;
  const auto server = StartForTest(kept.handler());
  RawClient idle(server->port());
  RawClient half(server->port());
  RawClient waiting(server->port());
  RawClient streaming(server->port());
  half.Send("GET /");
  waiting.Send(kGet + kGet);
  ASSERT_TRUE(kept.Has(1));
  streaming.Send(kGet);
  ASSERT_TRUE(kept.Has(2));
  kept.responders[1]->Begin(kStream);
  EXPECT_NE(streaming.ReadUntil("\r\n\r\n"), "");
  ASSERT_TRUE(Eventually([&] { return server->connections() == 4; }));
  server->StopAccepting();
  EXPECT_EQ(idle.ReadToEnd(), "");
  // The few bytes may not have been read yet; then it was idle.
  const int status = half.ReadAnswer().status;
  EXPECT_TRUE(status == 503 || status == 0) << status;
  kept.responders[0]->Send({200, "text/plain", {}, "done"});
  const RawAnswer answer = waiting.ReadAnswer();
  EXPECT_EQ(answer.body, "done");
  EXPECT_EQ(answer.header("Connection"), "close");
  EXPECT_EQ(waiting.ReadToEnd(), "");
  EXPECT_TRUE(kept.responders[1]->Write("x"));
  kept.responders[1]->End();
  EXPECT_EQ(streaming.ReadToEnd(), "1\r\nx\r\n0\r\n\r\n");
  EXPECT_EQ(kept.responders.size(), 2u);
  EXPECT_EQ(kept.disconnects, 0);
  HttpServerOptions options;
  options.port = server->port();
  EXPECT_TRUE(Eventually([&] { return HttpServer::Start(options, Echo).ok(); }));  // nobody listens there any more
}

TEST(HttpShutdown, MayComeWhileAnswersAreBeingWritten) {
  HttpServerOptions options;
  options.max_backlog_bytes = size_t{1} << 28;  // writers are faster than any client
  for (int round = 0; round < 20; ++round) {
    Kept kept;
    auto server = StartForTest(kept.handler(), options);
    std::vector<RawClient> clients;
    for (int i = 0; i < 8; ++i) {
      clients.emplace_back(server->port());
      clients.back().Send(kGet);
    }
    ASSERT_TRUE(kept.Has(8));
    std::vector<std::thread> writers;
    for (const auto& responder : kept.responders) {
      writers.emplace_back([responder] {
        responder->Begin(kStream);
        while (responder->Write("token")) {
          std::this_thread::yield();
        }
      });
    }
    EXPECT_EQ(clients[0].ReadBytes(1000).size(), 1000u);
    std::thread stop([&] { server->StopAccepting(); });
    std::thread twice([&] { server->Shutdown(); });
    server->Shutdown();
    stop.join();
    twice.join();
    for (std::thread& writer : writers) {
      writer.join();
    }
    server.reset();
  }
}

TEST(HttpLoad, Streams256AnswersAtOnceAndLeavesNothing) {
  constexpr int kClients = 256;
  constexpr int kTokens = 50;
  Kept kept;
  const auto server = StartForTest(kept.handler());
  std::vector<RawClient> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.emplace_back(server->port());
    clients.back().Send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  }
  ASSERT_TRUE(kept.Has(kClients));
  std::vector<std::weak_ptr<HttpResponder>> left(kept.responders.begin(), kept.responders.end());
  for (const auto& responder : kept.responders) {
    responder->Begin(kStream);
  }
  std::string expected;
  for (int token = 0; token < kTokens; ++token) {
    const std::string part = "data: " + std::to_string(token) + "\n\n";
    expected += part;
    for (const auto& responder : kept.responders) {
      EXPECT_TRUE(responder->Write(part));
    }
  }
  for (const auto& responder : kept.responders) {
    responder->End();
  }
  kept.responders.clear();
  for (RawClient& client : clients) {
    const RawAnswer answer = client.ReadAnswer();
    EXPECT_TRUE(answer.complete);
    EXPECT_EQ(answer.body, expected);
  }
  clients.clear();
  EXPECT_EQ(kept.disconnects, 0);
  EXPECT_TRUE(Eventually([&] { return server->connections() == 0; }));
  for (const auto& responder : left) {
    EXPECT_TRUE(responder.expired());
  }
}

// Answers on a thread of its own, now whole, now in parts, now not at all.
class Engine {
 public:
  explicit Engine(unsigned seed) : random_(seed), thread_([this] { Run(); }) {}
  ~Engine() {
    stop_ = true;
    thread_.join();
  }
  void Add(std::shared_ptr<HttpResponder> responder) {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(responder));
  }

 private:
  void Run() {
    while (!stop_) {
      std::vector<std::shared_ptr<HttpResponder>> batch;
      {
        const std::lock_guard lock(mutex_);
        batch.swap(queue_);
      }
      if (batch.empty()) {
        std::this_thread::yield();
      }
      for (const auto& responder : batch) {
        Answer(*responder);
      }
    }
  }
  void Answer(HttpResponder& responder) {
    const unsigned how = random_() % 8;
    if (how == 0) {
      return;  // dropped
    }
    if (how < 4) {
      return responder.Send({200, "text/plain", {}, "whole"});
    }
    responder.Begin(kStream);
    for (unsigned i = 0; i < how && responder.Write("part"); ++i) {
    }
    if (how != 7) {
      responder.End();
    }
  }

  std::mt19937 random_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<HttpResponder>> queue_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

TEST(HttpLoad, TenThousandRequestsWithRandomDisconnectsLeaveNoConnection) {
  Engine engine(1);
  std::atomic<int> handled = 0;
  const auto server = StartForTest([&](const HttpRequest&, std::shared_ptr<HttpResponder> responder) {
    ++handled;
    engine.Add(std::move(responder));
  });
  std::atomic<int> answered = 0;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t + 10);
      auto client = std::make_unique<RawClient>(server->port());
      for (int i = 0; i < 2500; ++i) {
        const unsigned how = random() % 8;
        const bool sent = client->Send(how == 0 ? "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf" : kGet);
        const bool stay = how > 2 && sent && client->ReadAnswer().complete;
        answered += stay ? 1 : 0;
        if (!stay) {
          how == 1 ? client->Reset() : client->Close();
          client = std::make_unique<RawClient>(server->port());
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_GT(answered, 1000);
  EXPECT_GT(handled, answered);
  EXPECT_TRUE(Eventually([&] { return server->connections() == 0; })) << server->connections();
}

}  // namespace
}  // namespace espalier
