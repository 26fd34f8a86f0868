// Whatever a valid request says, and however the network cuts it, the parser hands over what was sent.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "server/http_head.h"
#include "server/http_parser.h"

namespace espalier {
namespace {

constexpr size_t kMaxHeaderBytes = 4096;
constexpr size_t kMaxBodyBytes = 2048;

class HttpParserProperty : public testing::TestWithParam<uint32_t> {
 protected:
  // A request, as it is sent, and what it means.
  struct Sent {
    HttpRequest request;
    bool http10 = false;
    bool keep_alive = true;
    std::string bytes;
  };

  size_t Below(size_t n) { return random_() % n; }
  bool OneIn(uint32_t n) { return random_() % n == 0; }

  std::string Text(std::string_view alphabet, size_t least, size_t most) {
    std::string text(least + Below(most - least + 1), ' ');
    std::generate(text.begin(), text.end(), [&] { return alphabet[Below(alphabet.size())]; });
    return text;
  }
  std::string AnyBytes(size_t most) {
    std::string bytes(Below(most + 1), '\0');
    std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<char>(random_()); });
    return bytes;
  }

  // Any bytes but NUL, each as it is where it may be, or as an escape.
  std::string SomeTarget(HttpRequest* request) {
    std::string sent;
    request->path = "/";
    for (size_t n = Below(12); n > 0; --n) {
      const auto byte = static_cast<unsigned char>(1 + Below(255));
      request->path += static_cast<char>(byte);
      const bool plain =
          byte > 0x20 && byte < 0x7f && std::string_view("%?#").find(static_cast<char>(byte)) == std::string_view::npos;
      sent += plain && !OneIn(4)
                  ? std::string(1, static_cast<char>(byte))
                  : fmt::format(fmt::runtime(OneIn(2) ? "%{:02x}" : "%{:02X}"), static_cast<unsigned>(byte));
    }
    const std::string host = OneIn(5) ? "http://a.example:80" : "";
    sent = host + "/" + sent;
    if (OneIn(2)) {
      request->query = Text("abc=&%?/+:1", 0, 20);
      sent += "?" + request->query;
    }
    return sent;
  }

  std::string Chunked(std::string_view body) {
    std::string bytes;
    while (!body.empty()) {
      const std::string_view chunk = body.substr(0, 1 + Below(OneIn(2) ? 5 : 700));
      body.remove_prefix(chunk.size());
      bytes += fmt::format(fmt::runtime(OneIn(2) ? "{:x}" : "{:04X}"), chunk.size());
      bytes += OneIn(4) ? ";name=\"value\"" : "";
      bytes += fmt::format("\r\n{}\r\n", chunk);
    }
    return bytes + (OneIn(4) ? "0\r\nX-Trailer: late\r\n\r\n" : "0\r\n\r\n");
  }

  Sent SomeRequest() {
    constexpr const char* kMethods[] = {"GET", "POST", "HEAD", "OPTIONS", "DELETE", "PURGE", "X-OWN"};
    Sent sent;
    HttpRequest& request = sent.request;
    request.method = kMethods[Below(std::size(kMethods))];
    sent.http10 = OneIn(5);
    const std::string target = SomeTarget(&request);
    if (!sent.http10 || OneIn(2)) {
      request.headers.emplace_back(OneIn(2) ? "Host" : "hOST", "a.example");
    }
    sent.keep_alive = !sent.http10;
    if (OneIn(3)) {
      sent.keep_alive = OneIn(2);
      request.headers.emplace_back("Connection", sent.keep_alive ? "keep-alive" : "close");
    }
    for (size_t n = Below(6); n > 0; --n) {
      request.headers.emplace_back("x-" + Text("abcXYZ019-_.!#$%&'*+^`|~", 1, 12), Text("ab:,;\"=\\/ \t\x80\xff"
                                                                                        "c",
                                                                                        0, 30));
      std::string& value = request.headers.back().second;
      value.erase(0, value.find_first_not_of(" \t"));
      value.erase(value.find_last_not_of(" \t") + 1);
    }
    std::string body;
    if (OneIn(2)) {
      request.body = AnyBytes(OneIn(3) ? kMaxBodyBytes : 40);
      const bool chunked = !sent.http10 && OneIn(2);
      request.headers.emplace_back(chunked ? "transfer-encoding" : "content-LENGTH",
                                   chunked ? "Chunked" : fmt::format("{}", request.body.size()));
      body = chunked ? Chunked(request.body) : request.body;
    }
    if (request.method == "GET" || request.method == "HEAD" || request.method == "OPTIONS") {
      request.body.clear();
    }
    std::shuffle(request.headers.begin(), request.headers.end(), random_);
    sent.bytes = fmt::format("{} {} HTTP/1.{}\r\n", request.method, target, sent.http10 ? 0 : 1);
    for (const auto& [name, value] : request.headers) {
      sent.bytes += fmt::format("{}:{}{}{}\r\n", name,
                                OneIn(4)   ? ""
                                : OneIn(4) ? " \t "
                                           : " ",
                                value, OneIn(5) ? " " : "");
    }
    sent.bytes += "\r\n" + body;
    return sent;
  }

  static void ExpectSame(const Sent& sent, HttpRequestParser& parser) {
    EXPECT_EQ(parser.http10(), sent.http10) << sent.bytes;
    EXPECT_EQ(parser.keep_alive(), sent.keep_alive) << sent.bytes;
    const HttpRequest request = parser.Take();
    EXPECT_EQ(request.method, sent.request.method);
    EXPECT_EQ(request.path, sent.request.path) << sent.bytes;
    EXPECT_EQ(request.query, sent.request.query) << sent.bytes;
    EXPECT_EQ(request.headers, sent.request.headers) << sent.bytes;
    EXPECT_EQ(request.body, sent.request.body) << sent.bytes;
  }

  std::mt19937 random_{GetParam()};
};

TEST_P(HttpParserProperty, HandsOverWhatWasSentHoweverItIsCut) {
  std::vector<Sent> all;
  std::string stream;
  for (int i = 0; i < 20; ++i) {
    all.push_back(SomeRequest());
    stream += (OneIn(6) ? "\r\n" : "") + all.back().bytes;
  }
  const size_t longest = OneIn(3) ? 1 : OneIn(2) ? 50 : 5000;
  size_t received = 0;
  std::string waiting;
  auto parser = std::make_unique<HttpRequestParser>(kMaxHeaderBytes, kMaxBodyBytes);
  for (size_t at = 0; at < stream.size();) {
    const size_t cut = std::min(stream.size() - at, 1 + Below(longest));
    waiting += stream.substr(at, cut);
    at += cut;
    for (bool more = true; more;) {
      waiting.erase(0, parser->Feed(waiting));
      ASSERT_NE(parser->state(), HttpRequestParser::State::kFailed) << parser->reason() << "\n" << all[received].bytes;
      more = parser->state() == HttpRequestParser::State::kDone;
      if (more) {
        ASSERT_LT(received, all.size());
        ExpectSame(all[received++], *parser);
        parser = std::make_unique<HttpRequestParser>(kMaxHeaderBytes, kMaxBodyBytes);
      }
    }
  }
  EXPECT_EQ(received, all.size());
  EXPECT_EQ(waiting, "");
}

// An answer that repeats what a request said is one answer, with the headers it was given.
TEST_P(HttpParserProperty, WhatIsRepeatedStaysInItsLine) {
  for (int i = 0; i < 20; ++i) {
    HttpResponse response;
    response.headers = {{"X-Echo", AnyBytes(40)}, {"X-" + AnyBytes(5), "\r\n\r\nHTTP/1.1 200 OK\r\n"}};
    const std::string head = FormatHttpHead(response, {});
    EXPECT_EQ(head.find("\r\n\r\n"), head.size() - 4) << head;
    // Status, Date, Server, Content-Type, the two, Content-Length and the empty line.
    EXPECT_EQ(std::count(head.begin(), head.end(), '\n'), 8) << head;
    EXPECT_EQ(std::count(head.begin(), head.end(), '\r'), 8) << head;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, HttpParserProperty, testing::Range(1u, 41u));

}  // namespace
}  // namespace espalier
