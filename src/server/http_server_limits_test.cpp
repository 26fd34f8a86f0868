// What hostile, slow and too many clients meet.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "server/http_client_for_test.h"
#include "server/http_server.h"
#include "support/sanitizers.h"

namespace espalier {
namespace {

const std::string kGet = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

// The status of the answer, after which the connection has to end.
int StatusAndEnd(RawClient& client) {
  const RawAnswer answer = client.ReadAnswer();
  EXPECT_EQ(answer.header("Connection"), "close");
  EXPECT_TRUE(answer.complete);
  EXPECT_EQ(client.ReadToEnd(), "");
  return answer.status;
}

TEST(HttpLimits, AHeaderMayFillItsLimitAndNotExceedIt) {
  HttpServerOptions options;
  options.max_header_bytes = 1000;
  const auto server = StartForTest(Echo, options);
  const std::string begin = "GET / HTTP/1.1\r\nHost: h\r\nX: ";
  for (const bool at_once : {true, false}) {
    RawClient client(server->port());
    const std::string fits = begin + std::string(1000 - begin.size() - 4, 'x') + "\r\n\r\n";
    const std::string too_long = begin + std::string(1000 - begin.size() - 3, 'x') + "\r\n\r\n";
    for (const std::string& request : {fits, too_long}) {
      for (size_t i = 0; i < request.size(); i += at_once ? request.size() : 7) {
        client.Send(std::string_view(request).substr(i, at_once ? request.size() : 7));
      }
      if (request == fits) {
        EXPECT_EQ(client.ReadAnswer().status, 200);
      }
    }
    EXPECT_EQ(StatusAndEnd(client), 431);
  }
}

TEST(HttpLimits, ManySmallHeadersAreOneLargeHeader) {
  HttpServerOptions options;
  options.max_header_bytes = 1000;
  const auto server = StartForTest(Echo, options);
  RawClient client(server->port());
  client.Send("GET / HTTP/1.1\r\nHost: h\r\n");
  for (int i = 0; i < 200; ++i) {
    client.Send("X: y\r\n");
  }
  EXPECT_EQ(StatusAndEnd(client), 431);
}

TEST(HttpLimits, ABodyMayFillItsLimitAndNotExceedIt) {
  HttpServerOptions options;
  options.max_body_bytes = 100;
  const auto server = StartForTest(Echo, options);
  const std::string head = "POST / HTTP/1.1\r\nHost: h\r\n";
  const std::string chunk = "32\r\n" + std::string(50, 'x') + "\r\n";
  const std::string chunked = head + "Transfer-Encoding: chunked\r\n\r\n" + chunk + chunk;
  RawClient fits(server->port());
  fits.Send(head + "Content-Length: 100\r\n\r\n" + std::string(100, 'x') + chunked + "0\r\n\r\n");
  EXPECT_EQ(fits.ReadAnswer().body.size(), 100 + std::string("POST /  ").size());
  EXPECT_EQ(fits.ReadAnswer().body.size(), 100 + std::string("POST /  ").size());
  // The second one asks first, and must not be told to go on.
  for (const std::string& request : {head + "Content-Length: 101\r\n\r\n" + std::string(101, 'x'),
                                     head + "Content-Length: 101\r\nExpect: 100-continue\r\n\r\n",
                                     head + "Content-Length: 18446744073709551615\r\n\r\n", chunked + "1\r\nx\r\n"}) {
    RawClient client(server->port());
    client.Send(request);
    EXPECT_EQ(StatusAndEnd(client), 413);
  }
}

TEST(HttpLimits, AChunksExtensionsAndTheTrailerAreBoundedToo) {
  HttpServerOptions options;
  options.max_header_bytes = 1000;
  const auto server = StartForTest(Echo, options);
  for (const std::string begin : {"1;", "0\r\nX: "}) {
    RawClient client(server->port());
    client.Send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + begin + std::string(3000, 'x'));
    EXPECT_EQ(StatusAndEnd(client), 400);
  }
}

TEST(HttpLimits, SlowHeadersAndBodiesGet408) {
  HttpServerOptions options;
  options.header_seconds = 0.2;
  options.body_seconds = 0.2;
  const auto server = StartForTest(Echo, options);
  for (const std::string begin :
       {"G", "GET / HTTP/1.1\r\nHost: h\r\n", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nab"}) {
    RawClient client(server->port());
    client.Send(kGet);
    EXPECT_EQ(client.ReadAnswer().status, 200);
    client.Send(begin);
    EXPECT_EQ(StatusAndEnd(client), 408);
  }
}

TEST(HttpLimits, ATrickleOfBytesDoesNotExtendTheHeadersTime) {
  HttpServerOptions options;
  options.header_seconds = 0.2;
  const auto server = StartForTest(Echo, options);
  RawClient client(server->port());
  client.Send("GET / HTTP/1.1\r\nX: ");
  std::atomic<bool> over = false;
  std::thread trickle([&] {
    while (!over && client.Send("x")) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
  EXPECT_EQ(client.ReadAnswer().status, 408);
  over = true;
  trickle.join();
}

TEST(HttpLimits, AnIdleConnectionIsClosedWithoutAWord) {
  HttpServerOptions options;
  options.idle_seconds = 0.2;
  const auto server = StartForTest(Echo, options);
  RawClient silent(server->port());
  EXPECT_EQ(silent.ReadToEnd(), "");
  RawClient used(server->port());
  used.Send(kGet);
  EXPECT_EQ(used.ReadAnswer().status, 200);
  EXPECT_EQ(used.ReadToEnd(), "");
  EXPECT_TRUE(Eventually([&] { return server->connections() == 0; }));
}

TEST(HttpLimits, AHandlersTimeIsNotTheClients) {
  HttpServerOptions options;
  options.header_seconds = options.body_seconds = options.idle_seconds = options.write_seconds = 0.1;
  std::thread worker;
  auto server = StartForTest(
      [&](const HttpRequest&, std::shared_ptr<HttpResponder> responder) {
        worker = std::thread([responder = std::move(responder)] {
          std::this_thread::sleep_for(std::chrono::milliseconds(500));  // longer than every limit
          responder->Send({});
        });
      },
      options);
  RawClient client(server->port());
  client.Send(kGet);
  EXPECT_EQ(client.ReadAnswer().status, 200);
  worker.join();
}

TEST(HttpLimits, ConnectionsBeyondTheLimitGet503AndPlacesComeBack) {
  HttpServerOptions options;
  options.max_connections = 2;
  const auto server = StartForTest(Echo, options);
  std::vector<RawClient> served;
  for (int i = 0; i < 2; ++i) {
    served.emplace_back(server->port());
    served.back().Send(kGet);
    EXPECT_EQ(served.back().ReadAnswer().status, 200);
  }
  EXPECT_EQ(server->connections(), 2);
  for (int i = 0; i < 5; ++i) {
    RawClient client(server->port());  // is told so before it asks
    EXPECT_EQ(StatusAndEnd(client), 503);
  }
  served.pop_back();
  EXPECT_TRUE(Eventually([&] { return server->connections() == 1; }));
  RawClient client(server->port());
  client.Send(kGet);
  EXPECT_EQ(client.ReadAnswer().status, 200);
}

TEST(HttpLimits, TheServersOwnErrorsLookAsTheOptionsSay) {
  HttpServerOptions options;
  options.max_body_bytes = 1;
  options.error_response = [](int status, const std::string& reason) {
    return HttpResponse{0, "text/x-test", {{"X-Status", std::to_string(status)}}, "<" + reason + ">"};
  };
  const auto server = StartForTest(Echo, options);
  RawClient client(server->port());
  client.Send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n");
  const RawAnswer answer = client.ReadAnswer();
  EXPECT_EQ(answer.status, 413);
  EXPECT_EQ(answer.header("Content-Type"), "text/x-test");
  EXPECT_EQ(answer.header("X-Status"), "413");
  EXPECT_TRUE(answer.body.starts_with("<")) << answer.body;
}

TEST(HttpLimits, AClientThatStillSendsReadsWhyItIsRefused) {
  HttpServerOptions options;
  options.max_body_bytes = 1000;
  const auto server = StartForTest(Echo, options);
  RawClient client(server->port());
  client.Send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4000000\r\n\r\n");
  client.Send(std::string(4000000, 'x'));  // a reset would throw away what was sent to us before
  EXPECT_EQ(client.ReadAnswer().status, 413);
}

TEST(HttpLimits, WhatIsRefusedByItsHeadIsToldSoBeforeItsBodyComes) {
  HttpServerOptions options;
  options.refuse = [](const HttpRequest& head) {
    return head.header("X-Key") == "right" ? std::nullopt
                                           : std::optional(HttpResponse{401, "text/x-test", {}, "no: " + head.path});
  };
  const auto server = StartForTest(Echo, options);
  const std::string head = "POST /p HTTP/1.1\r\nHost: h\r\n";
  for (const std::string& rest : {std::string("Content-Length: 30000000\r\n\r\n"),
                                  std::string("Content-Length: 30000000\r\nExpect: 100-continue\r\n\r\n"),
                                  std::string("Transfer-Encoding: chunked\r\n\r\n"),
                                  "Content-Length: 4000000\r\n\r\n" + std::string(4000000, 'x')}) {
    RawClient client(server->port());
    client.Send(head + rest);
    const RawAnswer answer = client.ReadAnswer();
    EXPECT_EQ(answer.status, 401);
    EXPECT_EQ(answer.header("Connection"), "close");
    EXPECT_EQ(answer.body, "no: /p");
    EXPECT_EQ(client.ReadToEnd(), "");
  }
  RawClient client(server->port());
  client.Send(kGet);  // there is no body to wait for: the handler's
  EXPECT_EQ(client.ReadAnswer().status, 200);
  client.Send(head + "X-Key: right\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.ReadAnswer().status, 100);
  client.Send("abc");
  EXPECT_EQ(client.ReadAnswer().status, 200);
}

TEST(HttpLimits, ABodyWithoutMeaningIsNotKept) {
  HttpServerOptions options;
  options.refuse = [](const HttpRequest&) { return HttpResponse(); };
  const auto server = StartForTest(Echo, options);
  for (const std::string method : {"GET", "OPTIONS"}) {
    RawClient client(server->port());
    client.Send(method + " /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n");
    client.Send("hello" + kGet);
    EXPECT_EQ(client.ReadAnswer().body, method + " /p  ");
    EXPECT_EQ(client.ReadAnswer().status, 200);
  }
}

TEST(HttpLimits, WithoutDescriptorsItWaitsWithoutSpinningAndServesLater) {
  if (test::kSanitized) {
    GTEST_SKIP() << "sanitizers need descriptors where they meet a type for the first time";
  }
  const auto server = StartForTest(Echo);
  RawClient client;
  const int next = ::dup(0);
  ::close(next);
  rlimit before = {};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit none = before;
  none.rlim_cur = static_cast<rlim_t>(next);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  client.Connect(server->port());
  client.Send(kGet);
  std::this_thread::sleep_for(std::chrono::seconds(1));
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_GE(server->failed_accepts(), 1);
  EXPECT_LE(server->failed_accepts(), 20);  // a loop without a pause has tens of thousands by now
  EXPECT_EQ(client.ReadAnswer().status, 200);
}

}  // namespace
}  // namespace espalier
