// `espalier train rap`, driven from outside: what it leaves behind, and what it says of input that is wrong.
#include <gtest/gtest.h>

#include <map>

#include "support/cli.h"
#include "support/models.h"
#include "support/paths.h"

namespace espalier::test {
namespace {

using nlohmann::json;

class CliTrain : public CliTest {
 protected:
  using Arguments = std::vector<std::string>;

  std::string TextPath() const { return Write("text.txt", Slurp(DataPath("books-excerpt.txt")).substr(0, 4000)); }

  // A profile of the twin, ranked on two windows of 48 tokens.
  std::string Ranked() {
    const std::string profile = Path("p");
    Report({"rank", TwinPath(), "--text", TextPath(), "-o", profile, "-c", "48", "--windows", "2", "-t", "1",
            "--minutes", "0"});
    return profile;
  }

  static Arguments Train(const std::string& profile, const Arguments& more) {
    Arguments arguments = {"train", "rap", TwinPath(), "--profile", profile, "--episodes", "150", "-t", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
};

TEST_F(CliTrain, AddsAnAgentThatDecides) {
  const std::string profile = Ranked();
  const json paper = Report(Train(profile, {"--reward", "paper", "--network", "paper", "--plot", Path("curves.svg")}));
  EXPECT_EQ(paper["reward"], "paper");
  ASSERT_EQ(paper["gaps"].size(), 1u);
  EXPECT_EQ(paper["gaps"][0]["episodes"], 150);
  EXPECT_GE(paper["gaps"][0]["mean"].get<double>(), -1e-9) << "nobody is better than the optimum";
  const std::string svg = Slurp(Path("curves.svg"));
  EXPECT_EQ(svg.rfind("<svg xmlns", 0), 0u);
  EXPECT_NE(svg.find("TD error"), std::string::npos);

  // Between rounds what the agent serves is measured, with the text that the profile was ranked on.
  const json measured = Report(
      Train(profile, {"--text", TextPath(), "-c", "48", "--windows", "2", "--rounds", "2", "--network", "shared"}));
  EXPECT_EQ(measured["gaps"].size(), 2u);
  EXPECT_GT(measured["plans_measured"], 0);
  EXPECT_EQ(measured["gaps"][1]["episodes"], 300);

  for (const char* policy : {"rap", "rap-paper", "rap-measured", "rap-exact"}) {
    const json report = Report({"memory", TwinPath(), "--workload", "4x256", "--memory-budget", "75%", "--profile",
                                profile, "--policy", policy});
    EXPECT_NE(report.dump().find(std::string("\"") + policy + "\""), std::string::npos) << report.dump(1);
  }
  const json compared = Report({"compare", TwinPath(), "--profile", profile, "--text", TextPath(), "-c", "48",
                                "--windows", "2", "-t", "1", "--splits", "none", "--candidates", "0", "--scenarios",
                                Write("scenarios", "1x256 80%\n4x256 60%\n")});
  std::map<std::string, int> rows;
  for (const json& policy : compared["policies"]) {
    ++rows[policy["policy"].get<std::string>()];
  }
  EXPECT_EQ(rows["rap-paper"], 1);
  EXPECT_EQ(rows["rap-exact"], 1);
  EXPECT_EQ(rows["rap-measured"], 1);
}

TEST_F(CliTrain, GoesOnWhereItStoppedAndTheSameSeedTeachesTheSame) {
  const std::string profile = Ranked();
  std::filesystem::copy_file(profile, Path("q"));
  const json first = Report(Train(profile, {"--network", "paper"}));
  const json same = Report(Train(Path("q"), {"--network", "paper"}));
  EXPECT_EQ(first["curve"], same["curve"]);
  EXPECT_EQ(first["gaps"][0]["mean"], same["gaps"][0]["mean"]);
  const json further = Report(Train(profile, {"--network", "paper"}));
  EXPECT_EQ(further["gaps"][0]["episodes"], 300);
  EXPECT_EQ(further["curve"][0]["episodes"].get<int>(), 151);
}

TEST_F(CliTrain, TakesAnAgentOfAModelOfAnotherDepth) {
  const std::string profile = Ranked();
  Report(Train(profile, {"--network", "shared", "--seed", "7"}));
  const std::string other = ReferencePath();
  Report({"rank", other, "--text", TextPath(), "-o", Path("other"), "-c", "24", "--windows", "1", "-t", "1",
          "--minutes", "0", "--searches", "gsi"});
  const json taken = Report({"train", "rap", other, "--profile", Path("other"), "--network", "shared", "--seed", "7",
                             "--from", profile, "--episodes", "0", "-t", "1"});
  EXPECT_EQ(taken["gaps"][0]["episodes"], 150) << "trained on the first model";
  Report(
      {"memory", other, "--workload", "1x64", "--memory-budget", "90%", "--profile", Path("other"), "--policy", "rap"});
  // The paper's network is made for a number of blocks.
  Report(Train(profile, {"--seed", "7"}));
  ExpectRefusal({"train", "rap", other, "--profile", Path("other"), "--seed", "7", "--from", profile, "-t", "1"}, 1,
                {"parameters", "32 blocks"});
  ExpectRefusal({"train", "rap", other, "--profile", Path("other"), "--seed", "8", "--from", profile, "-t", "1"}, 1,
                {"--from", "seed 8"});
  ExpectRefusal({"train", "rap", other, "--profile", Path("other"), "--seed", "8", "--episodes", "0", "-t", "1"}, 1,
                {"episodes", "begin with"});
}

TEST_F(CliTrain, RefusesWhatItCannotLearnFrom) {
  ExpectRefusal(Train(Path("none"), {}), 1, {"none"});
  EXPECT_FALSE(std::filesystem::exists(Path("none"))) << "a profile is not begun by training on it";
  const std::string profile = Ranked();
  ExpectRefusal(
      {"memory", TwinPath(), "--workload", "1x256", "--memory-budget", "75%", "--profile", profile, "--policy", "rap"},
      1, {"no agent", "train rap"});
  // Not the windows that the profile was ranked on.
  ExpectRefusal(Train(profile, {"--text", TextPath(), "-c", "48", "--windows", "3"}), 1, {"text.txt", "ranked on"});
  ExpectRefusal(Train(profile, {"--plot", Path("missing/curves.svg")}), 1, {"missing"});
}

}  // namespace
}  // namespace espalier::test
