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
