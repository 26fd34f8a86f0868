#include "cli/plan_file.h"

#include <gtest/gtest.h>

#include <fstream>

namespace espalier {
namespace {

TEST(JsonPlan, ReadsKeepFractionsAndLeavesOtherMembersAlone) {
  const auto plan = ParseJsonPlan(R"({"keep": {"a3": 0, "f2": 0.5}, "loss": 0.1})", 4);
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  EXPECT_EQ(plan->ToText(), "f2=0.5 a3=0");
}

TEST(JsonPlan, RefusesWhatIsNoPlan) {
  for (const char* json : {"", "{", "[]", "3", R"({"kept": {}})", R"({"keep": []})", R"({"keep": {"a4": 0}})",
                           R"({"keep": {"a3": 2}})", R"({"keep": {"a3": -0.5}})", R"({"keep": {"a3": "0"}})",
                           R"({"keep": {"a3": null}})", R"({"keep": {"a3": 0, "a3": 1}})"}) {
    EXPECT_FALSE(ParseJsonPlan(json, 4).ok()) << json;
  }
}

TEST(JsonPlan, OnlyWhatIsInKeepHasToBeThereOnce) {
  const auto plan = ParseJsonPlan(R"({"loss": {"a": 1, "a": 2}, "keep": {"a3": 0}, "more": {"a3": 1}})", 4);
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  EXPECT_EQ(plan->ToText(), "a3=0");
  for (const char* json : {R"({"keep": {"a3": 0, "f1": 1, "a3": 0}})", R"({"keep": {"a3": 0}, "keep": {"a3": 0}})",
                           R"({"keep": {"a3": 0}, "keep": {}})"}) {
    const auto twice = ParseJsonPlan(json, 4);
    ASSERT_FALSE(twice.ok()) << json;
    EXPECT_NE(twice.status().message().find("expected once, found again"), std::string::npos)
        << twice.status().message();
  }
}

// A file of 1 MiB has room for so many; comparing each with each took 10 s.
TEST(JsonPlan, ManyMembersTakeNoTimeThatGrowsWithTheirSquare) {
  std::string json = R"({"keep": {)";
  for (int i = 0; i < 90'000; ++i) {
    json += (i > 0 ? ",\"" : "\"") + std::to_string(i) + "\":0";
  }
  const auto plan = ParseJsonPlan(json + "}}", 4);
  ASSERT_FALSE(plan.ok());
  EXPECT_NE(plan.status().message().find("unknown block"), std::string::npos) << plan.status().message();
}

TEST(JsonPlan, NestingTakesNoStack) {
  const std::string deep(400'000, '[');
  const auto plan = ParseJsonPlan(R"({"keep": {"a1": )" + deep + std::string(deep.size(), ']') + "}}", 2);
  ASSERT_FALSE(plan.ok());
  EXPECT_NE(plan.status().message().find("block a1: expected a keep fraction from 0 to 1, found an array of 1"),
            std::string::npos)
      << plan.status().message();
}

TEST(JsonPlan, UnknownBlocksAreNamedWithTheRange) {
  const auto plan = ParseJsonPlan(R"({"keep": {"f9": 0}})", 4);
  ASSERT_FALSE(plan.ok());
  EXPECT_NE(plan.status().message().find("f9"), std::string::npos);
  EXPECT_NE(plan.status().message().find("f3"), std::string::npos);
}

TEST(ReadPlan, TakesTextTextFilesAndJsonFiles) {
  const std::string folder = testing::TempDir();
  std::ofstream(folder + "plan.txt") << "a1=0 f2=0\n";
  std::ofstream(folder + "plan.json") << "\n {\"keep\": {\"a1\": 0, \"f2\": 0}}\n";
  for (const std::string& plan : {std::string("a1=0 f2=0"), folder + "plan.txt", folder + "plan.json"}) {
    const auto read = ReadPlan(plan, 4);
    ASSERT_TRUE(read.ok()) << read.status().message();
    EXPECT_EQ(read->ToText(), "a1=0 f2=0");
  }
}

TEST(ReadPlan, AMissingFileIsNotTakenForAPlan) {
  const auto plan = ReadPlan("/nowhere/plan.json", 4);
  ASSERT_FALSE(plan.ok());
  EXPECT_EQ(plan.status().code(), ErrorCode::kNotFound);
  EXPECT_NE(plan.status().message().find("/nowhere/plan.json"), std::string::npos);
}

}  // namespace
}  // namespace espalier
