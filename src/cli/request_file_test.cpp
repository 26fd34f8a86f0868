#include "cli/request_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace espalier {
namespace {

using Target = CompressionRequest::Target;
using testing::HasSubstr;

TEST(RequestLine, EveryTarget) {
  const auto bytes = ParseRequestLine(R"({"id": "phone", "max_bytes": 20000000})");
  ASSERT_TRUE(bytes.ok()) << bytes.status().message();
  EXPECT_EQ(bytes->id, "phone");
  EXPECT_EQ(bytes->request.target, Target::kBytes);
  EXPECT_EQ(bytes->request.value, 20e6);
  EXPECT_FALSE(bytes->request.workload);
  EXPECT_EQ(ParseRequestLine(R"({"max_bytes": "2MiB"})")->request.value, 2 * 1048576.0);

  const auto ratio = ParseRequestLine(R"({"size_ratio": 0.7, "workload": "8x512", "id": 17})");
  ASSERT_TRUE(ratio.ok());
  EXPECT_EQ(ratio->id, "17");
  EXPECT_EQ(ratio->request.target, Target::kSizeRatio);
  EXPECT_EQ(*ratio->request.workload, Workload::Uniform(8, 512));

  EXPECT_EQ(ParseRequestLine(R"({"max_loss": 0.1})")->request.target, Target::kLoss);
  EXPECT_EQ(ParseRequestLine(R"({"max_loss": 0})")->request.value, 0);
  EXPECT_EQ(ParseRequestLine(R"({"max_latency_ms": 3.5})")->request.target, Target::kLatency);
  const auto preference = ParseRequestLine(R"({"preference": [0.25, 0.75]})");
  ASSERT_TRUE(preference.ok());
  EXPECT_EQ(preference->request.target, Target::kPreference);
  EXPECT_EQ(preference->request.value, 0.25);
}

TEST(RequestLine, ErrorsNameTheField) {
  for (const auto& [line, parts] : std::vector<std::pair<std::string, std::vector<std::string>>>{
           {"size_ratio", {"JSON object"}},
           {"[1]", {"JSON object", "array"}},
           {"{}", {"max_bytes", "preference", "found none"}},
           {R"({"size_ratio": 0.5, "max_loss": 1})", {"max_loss", "size_ratio", "both"}},
           {R"({"size_ratio": 1.5})", {"size_ratio", "at most 1", "1.5"}},
           {R"({"size_ratio": 0})", {"size_ratio", "above 0"}},
           {R"({"size_ratio": "0.5"})", {"size_ratio", "a number"}},
           {R"({"max_bytes": -3})", {"max_bytes", "-3"}},
           {R"({"max_bytes": 1.5})", {"max_bytes", "1.5"}},
           {R"({"max_bytes": "much"})", {"max_bytes", "much"}},
           {R"({"max_bytes": 0})", {"max_bytes", "1 to 2^53"}},
           {R"({"max_bytes": 18446744073709551615})", {"max_bytes", "1 to 2^53", "1.8446744073709552e+19"}},
           {R"({"size_ratio": 0.9, "size_ratio": 0.5})", {"size_ratio", "once", "again"}},
           {R"({"max_loss": -0.1})", {"max_loss", "-0.1"}},
           {R"({"max_loss": null})", {"max_loss", "null"}},
           {R"({"max_latency_ms": 0})", {"max_latency_ms", "above 0"}},
           {R"({"preference": 0.5})", {"preference", "weight of size"}},
           {R"({"preference": [0.5, 0.6]})", {"preference", "0.6"}},
           {R"({"preference": [1.5, -0.5]})", {"preference", "1.5"}},
           {R"({"preference": [0.5]})", {"preference"}},
           {R"({"size_ratio": 0.5, "workload": "8 by 3"})", {"workload", "8 by 3"}},
           {R"({"size_ratio": 0.5, "workload": 8})", {"workload", "8"}},
           {R"({"size_ratio": 0.5, "id": "../x"})", {"id", "../x"}},
           {R"({"size_ratio": 0.5, "id": ""})", {"id"}},
           {R"({"size_ratio": 0.5, "id": "-rf"})", {"id", "-rf"}},
           {R"({"size_ration": 0.5})", {"size_ration", "unknown", "size_ratio"}}}) {
    const auto parsed = ParseRequestLine(line);
    ASSERT_FALSE(parsed.ok()) << line;
    EXPECT_EQ(parsed.status().code(), ErrorCode::kInvalidArgument) << line;
    for (const std::string& part : parts) {
      EXPECT_THAT(parsed.status().message(), HasSubstr(part)) << line;
    }
  }
}

TEST(RequestFile, OneBadLineDoesNotStopTheOthers) {
  const auto lines = ParseRequestFile(
      "{\"size_ratio\": 0.7, \"id\": \"a\"}\n\nnonsense\r\n{\"max_loss\": 0.1}\n{\"max_loss\": 0.1, \"id\": \"a\"}",
      "requests.jsonl");
  ASSERT_TRUE(lines.ok());
  ASSERT_EQ(lines->size(), 4);
  EXPECT_TRUE((*lines)[0].request.ok());
  EXPECT_EQ((*lines)[1].line, 3);
  EXPECT_THAT((*lines)[1].request.status().message(), HasSubstr("'requests.jsonl', line 3"));
  EXPECT_TRUE((*lines)[2].request.ok());
  EXPECT_EQ((*lines)[2].id, "line-4");
  EXPECT_THAT((*lines)[3].request.status().message(), HasSubstr("'a' again"));
  EXPECT_FALSE(ParseRequestFile(" \n\n", "empty.jsonl").ok());
  // A line that is wrong elsewhere keeps its name.
  const auto wrong = ParseRequestFile("{\"id\": \"phone\", \"size_ratio\": 2}", "wrong.jsonl");
  ASSERT_TRUE(wrong.ok());
  EXPECT_EQ(wrong->front().id, "phone");
  EXPECT_THAT(wrong->front().request.status().message(), HasSubstr("line 1 (phone): field \"size_ratio\""));
}

}  // namespace
}  // namespace espalier
