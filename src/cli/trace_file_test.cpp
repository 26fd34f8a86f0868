#include "cli/trace_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "serving/trace_generator.h"

namespace espalier {
namespace {

using testing::HasSubstr;

constexpr const char* kHead = R"({"trace": "espalier-load-trace", "version": 1, "duration_seconds": 60})";

TEST(TraceFile, ReadsEveryFieldAndSorts) {
  const auto trace = ParseTraceFile(
      R"({"trace": "espalier-load-trace", "version": 1, "name": "two", "seed": 9, "duration_seconds": 60.5})"
      "\n\r\n"
      R"({"at": 30, "memory_budget": "60%"})"
      "\n"
      R"({"at": 2, "prompt_tokens": 120, "max_tokens": 64})"
      "\n"
      R"({"at": 1.25, "prompt_tokens": 12, "max_tokens": 6, "prompt_seed": 18446744073709551615, "shared_prefix_tokens": 4})"
      "\n"
      R"({"at": 10, "memory_budget": 734003200})"
      "\n"
      R"({"at": 2, "prompt_tokens": 1, "max_tokens": 1})",
      "t.jsonl");
  ASSERT_TRUE(trace.ok()) << trace.status().message();
  EXPECT_EQ(trace->name, "two");
  EXPECT_EQ(trace->seed, 9);
  EXPECT_EQ(trace->duration_seconds, 60.5);
  // A prompt without a seed is told apart by its place in the file.
  EXPECT_EQ(trace->arrivals, (std::vector<Arrival>{{1.25, 12, 6, UINT64_MAX, 4}, {2, 120, 64, 0, 0}, {2, 1, 1, 2, 0}}));
  EXPECT_EQ(trace->budgets, (std::vector<BudgetStep>{{10, Budget::Bytes(734003200)}, {30, Budget::Percent(60)}}));
}

TEST(TraceFile, WhatIsWrittenIsReadAsTheSame) {
  LoadTrace trace = *GenerateTrace({.seconds = 100.125,
                                    .arrivals = ArrivalKind::kBursty,
                                    .rate = 3,
                                    .shared_prefix_tokens = 20,
                                    .budget = BudgetKind::kRandomWalk});
  trace.name = "a \"name\"\n\xE2\x82\xAC";
  trace.seed = UINT64_MAX;
  trace.arrivals.front().seconds = 1e-17;
  trace.budgets.push_back({100.125, Budget::Bytes(INT64_MAX)});
  trace.budgets.push_back({100.125, Budget::Percent(100.0 / 3)});
  ASSERT_TRUE(CheckTrace(trace).ok());
  const auto read = ParseTraceFile(TraceFileText(trace), "t.jsonl");
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(*read, trace);
  const LoadTrace empty = {.name = "quiet", .seed = 0, .duration_seconds = 1};
  EXPECT_EQ(*ParseTraceFile(TraceFileText(empty), "t.jsonl"), empty);
}

TEST(TraceFile, ErrorsNameLineFieldExpectedAndFound) {
  for (const auto& [line, parts] : std::vector<std::pair<std::string, std::vector<std::string>>>{
           {"nonsense", {"JSON object"}},
           {"[1]", {"array"}},
           {"{}", {"\"at\"", "found none"}},
           {R"({"at": 1, "prompt_tokens": 5})", {"max_tokens", "found none"}},
           {R"({"at": 1, "prompt_tokens": 0, "max_tokens": 5})", {"prompt_tokens", "1 to ", "found 0"}},
           {R"({"at": 1, "prompt_tokens": 1.5, "max_tokens": 5})", {"prompt_tokens", "whole number", "1.5"}},
           {R"({"at": 1, "prompt_tokens": "5", "max_tokens": 5})", {"prompt_tokens", "\"5\""}},
           {R"({"at": 1, "prompt_tokens": 18446744073709551615, "max_tokens": 5})",
            {"prompt_tokens", "18446744073709551615"}},
           {R"({"at": 1, "prompt_tokens": 5, "max_tokens": -5})", {"max_tokens", "-5"}},
           {R"({"at": 61, "prompt_tokens": 5, "max_tokens": 5})", {"\"at\"", "0 to 60", "61"}},
           {R"({"at": -1, "prompt_tokens": 5, "max_tokens": 5})", {"\"at\"", "-1"}},
           {R"({"at": null, "prompt_tokens": 5, "max_tokens": 5})", {"\"at\"", "seconds", "null"}},
           {R"({"at": 1e999, "prompt_tokens": 5, "max_tokens": 5})", {"not JSON"}},
           {R"({"at": 1, "at": 2, "prompt_tokens": 5, "max_tokens": 5})", {"\"at\"", "once"}},
           {R"({"at": 1, "prompt_tokens": 5, "max_tokens": 5, "prompt_seed": -1})", {"prompt_seed", "-1"}},
           {R"({"at": 1, "prompt_tokens": 5, "max_tokens": 5, "shared_prefix_tokens": 6})",
            {"shared_prefix_tokens", "0 to 5", "6"}},
           {R"({"at": 1, "prompt_tokens": 5, "max_tokens": 5, "colour": 1})", {"colour", "unknown", "prompt_tokens"}},
           {R"({"at": 1, "memory_budget": "60%", "max_tokens": 5})", {"max_tokens", "unknown"}},
           {R"({"memory_budget": "60%"})", {"\"at\"", "found none"}},
           {R"({"at": 1, "memory_budget": "0%"})", {"memory_budget", "0%"}},
           {R"({"at": 1, "memory_budget": "much"})", {"memory_budget", "much"}},
           {R"({"at": 1, "memory_budget": 0})", {"memory_budget", "found 0"}},
           {R"({"at": 1, "memory_budget": -5})", {"memory_budget", "-5"}},
           {R"({"at": 1, "memory_budget": 1.5})", {"memory_budget", "1.5"}},
           {R"({"at": 90, "memory_budget": 5})", {"\"at\"", "90"}},
           {"{\"at\": \"" + std::string(5000, 'x') + "\"}", {"at most 4096 bytes"}}}) {
    const auto trace = ParseTraceFile(std::string(kHead) + "\n\n" + line, "t.jsonl");
    ASSERT_FALSE(trace.ok()) << line;
    EXPECT_THAT(trace.status().message(), HasSubstr("'t.jsonl', line 3: ")) << line;
    for (const std::string& part : parts) {
      EXPECT_THAT(trace.status().message(), HasSubstr(part)) << line;
    }
  }
}

TEST(TraceFile, TheFirstLineHasToBeTheHead) {
  for (const auto& [text, part] : std::vector<std::pair<std::string, std::string>>{
           {"\n \n", "no lines"},
           {R"({"at": 1, "memory_budget": "60%"})", "espalier-load-trace"},
           {R"({"trace": "other", "version": 1, "duration_seconds": 60})", "\"other\""},
           {R"({"trace": "espalier-load-trace", "duration_seconds": 60})", "version"},
           {R"({"trace": "espalier-load-trace", "version": 2, "duration_seconds": 60})", "expected 1, found 2"},
           {R"({"trace": "espalier-load-trace", "version": 1})", "duration_seconds"},
           {R"({"trace": "espalier-load-trace", "version": 1, "duration_seconds": 0})", "above 0"},
           {R"({"trace": "espalier-load-trace", "version": 1, "duration_seconds": 5, "name": 5})", "name"},
           {R"({"trace": "espalier-load-trace", "version": 1, "duration_seconds": 5, "seed": -5})", "seed"},
           {std::string(kHead) + "\n" + kHead, "line 2: field \"duration_seconds\" is unknown here"}}) {
    const auto trace = ParseTraceFile(text, "t.jsonl");
    ASSERT_FALSE(trace.ok()) << text;
    EXPECT_THAT(trace.status().message(), HasSubstr(part)) << text;
    EXPECT_THAT(trace.status().message(), HasSubstr("t.jsonl")) << text;
  }
}

}  // namespace
}  // namespace espalier
