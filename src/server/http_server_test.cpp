// Requests and their answers as HTTP has them: what is understood, what is refused, and in which order.
#include "server/http_server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "server/http_client_for_test.h"

namespace espalier {
namespace {

const std::string kGet = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

TEST(HttpServer, HandsOverDecodedPathQueryHeadersAndPeer) {
  std::mutex mutex;
  HttpRequest seen;
  const auto server = StartForTest([&](HttpRequest request, const std::shared_ptr<HttpResponder>& responder) {
    const std::lock_guard lock(mutex);
    seen = request;
    responder->Send({201, "text/plain", {{"X-One", "1"}}, "made"});
  });
  RawClient client(server->port());
  client.Send("PUT /a%20b%2fc?x=%20&y HTTP/1.1\r\nHost: h\r\nX-Api-Key:  s e \r\nContent-Length: 3\r\n\r\nabc");
  const RawAnswer answer = client.ReadAnswer();
  EXPECT_EQ(answer.status, 201);
  EXPECT_TRUE(answer.head.starts_with("HTTP/1.1 201 Created\r\n"));
  EXPECT_EQ(answer.header("content-type"), "text/plain");
  EXPECT_EQ(answer.header("X-One"), "1");
  EXPECT_EQ(answer.header("Content-Length"), "4");
  EXPECT_TRUE(answer.header("Date").ends_with(" GMT"));
  EXPECT_EQ(answer.header("Connection"), "");
  EXPECT_EQ(answer.body, "made");
  const std::lock_guard lock(mutex);
  EXPECT_EQ(seen.method, "PUT");
  EXPECT_EQ(seen.path, "/a b/c");
  EXPECT_EQ(seen.query, "x=%20&y");
  EXPECT_EQ(seen.body, "abc");
  EXPECT_EQ(seen.header("x-API-key"), "s e");
  EXPECT_EQ(seen.header("absent"), "");
  EXPECT_TRUE(seen.peer.starts_with("127.0.0.1:")) << seen.peer;
}

TEST(HttpServer, AcceptsAbsoluteTargetsAsProxiesClientsSendThem) {
  const auto server = StartForTest(Echo);
  RawClient client(server->port());
  client.Send("GET http://h:1/p?q HTTP/1.1\r\nHost: h\r\n\r\nGET http://h?q HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(client.ReadAnswer().body, "GET /p q ");
  EXPECT_EQ(client.ReadAnswer().body, "GET / q ");
}

TEST(HttpServer, KeepsAnHttp11ConnectionUntilItIsToldToClose) {
  const auto server = StartForTest(Echo);
  RawClient client(server->port());
  for (int i = 0; i < 3; ++i) {
    client.Send(kGet);
    EXPECT_EQ(client.ReadAnswer().status, 200);
  }
  client.Send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(client.ReadAnswer().header("Connection"), "close");
  EXPECT_EQ(client.ReadToEnd(), "");
}

TEST(HttpServer, ClosesAnHttp10ConnectionUnlessItIsAskedToKeepIt) {
  const auto server = StartForTest(Echo);
  RawClient client(server->port());
  client.Send("GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const RawAnswer first = client.ReadAnswer();
  EXPECT_EQ(first.body, "GET /1  ");
  EXPECT_EQ(first.header("Connection"), "keep-alive");
  client.Send("GET /2 HTTP/1.0\r\n\r\n");
  const RawAnswer second = client.ReadAnswer();
  EXPECT_EQ(second.body, "GET /2  ");
  EXPECT_EQ(second.header("Connection"), "close");
  EXPECT_EQ(client.ReadToEnd(), "");
}

TEST(HttpServer, AnswersPipelinedRequestsOneByOneInTheirOrder) {
  std::atomic<int> at_work = 0;
  std::atomic<bool> overlapped = false;
  std::vector<std::thread> threads;
  auto server = StartForTest([&](HttpRequest request, std::shared_ptr<HttpResponder> responder) {
    overlapped = overlapped || ++at_work > 1;
    threads.emplace_back([&at_work, request = std::move(request), responder = std::move(responder)] {
      --at_work;
      responder->Send({200, "text/plain", {}, request.path + request.body});
    });
  });
  RawClient client(server->port());
  std::string requests;
  for (int i = 0; i < 50; ++i) {
    requests +=
        "POST /" + std::to_string(i) + " HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n;" + std::to_string(i % 10);
  }
  client.Send(requests);
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(client.ReadAnswer().body, "/" + std::to_string(i) + ";" + std::to_string(i % 10));
  }
  server.reset();
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_FALSE(overlapped);
}

TEST(HttpServer, UnderstandsRequestsThatComeByteByByte) {
  const auto server = StartForTest(Echo);
  RawClient client(server->port());
  for (const char byte : std::string("\r\nPOST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n"
                                     "3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nX-Late: 1\r\n\r\n")) {
    client.Send({&byte, 1});
  }
  EXPECT_EQ(client.ReadAnswer().body, "POST /p  abc0123456789");
  client.Send(kGet);
  EXPECT_EQ(client.ReadAnswer().body, "GET /  ");
}

TEST(HttpServer, HeadersAfterAChunkedBodyAreNotTheRequests) {
  const auto server = StartForTest([](HttpRequest request, const std::shared_ptr<HttpResponder>& responder) {
    responder->Send({200, "text/plain", {}, "[" + std::string(request.header("Authorization")) + "]"});
  });
  RawClient client(server->port());
  client.Send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nAuthorization: late\r\n\r\n");
  EXPECT_EQ(client.ReadAnswer().body, "[]");
}

TEST(HttpServer, TellsAClientThatExpectsItToContinue) {
  const auto server = StartForTest(Echo);
  RawClient client(server->port());
  client.Send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n");
  EXPECT_EQ(client.ReadUntil("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.Send("ok");
  EXPECT_EQ(client.ReadAnswer().body, "POST /  ok");
}

TEST(HttpServer, HeadGetsTheLengthWithoutTheBody) {
  const auto server = StartForTest([](HttpRequest request, const std::shared_ptr<HttpResponder>& responder) {
    if (request.path == "/stream") {
      responder->Begin({200, "text/plain", {}, "part"});
      EXPECT_TRUE(responder->Write("another"));
      responder->End();
    } else {
      responder->Send({200, "text/plain", {}, "12345"});
    }
  });
  RawClient client(server->port());
  client.Send("HEAD /stream HTTP/1.1\r\nHost: h\r\n\r\nHEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(client.ReadAnswer(true).header("Transfer-Encoding"), "chunked");
  EXPECT_EQ(client.ReadAnswer(true).header("Content-Length"), "5");
  client.Send(kGet);
  EXPECT_EQ(client.ReadAnswer().body, "12345");
}

TEST(HttpServer, AnAnswerWithoutContentHasNoLength) {
  const auto server = StartForTest([](const HttpRequest&, const std::shared_ptr<HttpResponder>& responder) {
    responder->Send({204, "", {{"Allow", "GET"}}, ""});
  });
  RawClient client(server->port());
  client.Send(kGet + kGet);
  const RawAnswer answer = client.ReadAnswer();
  EXPECT_EQ(answer.status, 204);
  EXPECT_EQ(answer.head.find("Content-"), std::string::npos) << answer.head;
  EXPECT_EQ(client.ReadAnswer().status, 204);
}

TEST(HttpServer, AnAnswersHeadersCannotAddLinesOrOverrideTheFraming) {
  const auto server = StartForTest([](const HttpRequest&, const std::shared_ptr<HttpResponder>& responder) {
    responder->Send({200, "text/plain", {{"X-Echo", "a\r\nX-Evil: 1"}, {"content-length", "99"}}, "b"});
  });
  RawClient client(server->port());
  client.Send(kGet);
  const RawAnswer answer = client.ReadAnswer();
  EXPECT_EQ(answer.header("X-Evil"), "");
  EXPECT_EQ(answer.header("X-Echo"), "a  X-Evil: 1");
  EXPECT_EQ(answer.header("Content-Length"), "1");
}

TEST(HttpServer, RefusesWhatIsNotHttpAndWhatTwoReadersCouldReadDifferently) {
  std::atomic<int> handled = 0;
  const auto server = StartForTest([&](HttpRequest request, const std::shared_ptr<HttpResponder>& responder) {
    ++handled;
    Echo(std::move(request), responder);
  });
  using namespace std::string_literals;
  const std::string head = "POST / HTTP/1.1\r\nHost: h\r\n";
  const std::vector<std::string> requests = {
      "\x16\x03\x01\x02"s,  // TLS
      "hello\r\n\r\n",
      "GET / HTTP/1.1\n\n",
      "GET / HTTP/2.0\r\nHost: h\r\n\r\n",
      "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
      "GET a HTTP/1.1\r\nHost: h\r\n\r\n",
      "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
      "CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n",
      "GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n",
      "GET /%4 HTTP/1.1\r\nHost: h\r\n\r\n",
      "GET /% HTTP/1.1\r\nHost: h\r\n\r\n",
      "GET /a%00b HTTP/1.1\r\nHost: h\r\n\r\n",
      "GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n",
      "GET /\xc3\xa9 HTTP/1.1\r\nHost: h\r\n\r\n",
      "GET / HTTP/1.1\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
      head + "X: a\0b\r\n\r\n"s,
      head + "X: a\rb\r\n\r\n",
      head + "X: a\nY: b\r\n\r\n",
      head + "X: a\r\n folded\r\n\r\n",
      head + "X : a\r\n\r\n",
      head + ": a\r\n\r\n",
      head + "X\r\n\r\n",
      head + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
      head + "Content-Length: 1, 2\r\n\r\n",
      head + "Content-Length: -1\r\n\r\n",
      head + "Content-Length: +1\r\n\r\n",
      head + "Content-Length: 0x1\r\n\r\n",
      head + "Content-Length: \r\n\r\n",
      head + "Content-Length: 99999999999999999999\r\n\r\n",
      head + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
      head + "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
      head + "Transfer-Encoding: gzip, chunked\r\n\r\n",
      head + "Transfer-Encoding: identity\r\n\r\n",
      head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
      "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
      head + "Transfer-Encoding: chunked\r\n\r\nx\r\n",
      head + "Transfer-Encoding: chunked\r\n\r\n1\r\nabcd\r\n",
      head + "Transfer-Encoding: chunked\r\n\r\n1ffffffffffffffff\r\n",
  };
  for (const std::string& request : requests) {
    SCOPED_TRACE(request);
    RawClient client(server->port());
    client.Send(request);
    const RawAnswer answer = client.ReadAnswer();
    EXPECT_EQ(answer.status, 400) << answer.body;
    EXPECT_EQ(answer.header("Connection"), "close");
    EXPECT_NE(answer.body, "");
    EXPECT_EQ(client.ReadToEnd(), "");
  }
  EXPECT_EQ(handled, 0);
}

TEST(HttpServer, ListensOnNamesAndAddressesOfBothKinds) {
  for (const std::string host : {"127.0.0.1", "localhost", "::1", "[::1]", "::", "0.0.0.0"}) {
    HttpServerOptions options;
    options.host = host;
    options.port = 0;
    const auto server = HttpServer::Start(options, Echo);
    if (!server.ok() && host.find(':') != std::string::npos) {
      continue;  // a machine without IPv6
    }
    ASSERT_TRUE(server.ok()) << server.status().message();
    if (host != "::1" && host != "[::1]") {
      RawClient client((*server)->port());
      client.Send(kGet);
      EXPECT_EQ(client.ReadAnswer().status, 200) << host;
    }
  }
}

TEST(HttpServer, SaysWhereAndWhyItCannotListen) {
  const auto server = StartForTest(Echo);
  HttpServerOptions options;
  options.port = server->port();
  const auto second = HttpServer::Start(options, Echo);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), ErrorCode::kIo);
  const std::string message = second.status().message();
  EXPECT_NE(message.find("127.0.0.1"), std::string::npos) << message;
  EXPECT_NE(message.find(std::to_string(options.port)), std::string::npos) << message;
  EXPECT_NE(message.find("in use"), std::string::npos) << message;
  for (const std::string host : {"", "no such host.invalid", "192.0.2.1"}) {
    options.host = host;
    const auto nowhere = HttpServer::Start(options, Echo);
    ASSERT_FALSE(nowhere.ok());
    EXPECT_NE(nowhere.status().message().find("'" + host + "'"), std::string::npos) << nowhere.status().message();
  }
}

}  // namespace
}  // namespace espalier
