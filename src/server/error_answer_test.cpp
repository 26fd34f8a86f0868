#include "server/error_answer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace espalier {
namespace {

TEST(HttpErrorAnswer, MayBeReadByBrowsersAndSaysWhenToComeBack) {
  for (const int status : {400, 408, 413, 431, 503}) {
    const HttpResponse answer = HttpErrorAnswer(status, "the reason");
    EXPECT_EQ(answer.status, status);
    EXPECT_NE(answer.body.find("the reason"), std::string::npos);
    const auto has = [&](const std::string& name) {
      return std::any_of(answer.headers.begin(), answer.headers.end(),
                         [&](const auto& header) { return header.first == name; });
    };
    EXPECT_TRUE(has("Access-Control-Allow-Origin")) << status;
    EXPECT_EQ(has("Retry-After"), status == 503);
  }
}

}  // namespace
}  // namespace espalier
