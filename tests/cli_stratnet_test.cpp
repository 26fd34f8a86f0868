// espalier train stratnet, as a user runs it.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "support/cli.h"
#include "support/models.h"
#include "support/paths.h"

namespace espalier::test {
namespace {

using nlohmann::json;

const std::string kText = DataPath("books-excerpt.txt");

TEST_F(CliTest, StratNetIsTrainedAndDecides) {
  const std::string profile = Path("profile");
  const std::vector<std::string> train = {
      "train", "stratnet",  TwinPath(), "--profile", profile, "--text",        kText, "-c",
      "48",    "--windows", "2",        "-t",        "1",     "--evaluations", "60"};
  // From nothing: the profile is begun.
  std::vector<std::string> plotting = train;
  plotting.insert(plotting.end(), {"--plot", Path("front.svg")});
  const json first = Report(plotting);
  const std::string svg = Slurp(Path("front.svg"));
  EXPECT_EQ(svg.rfind("<svg", 0), 0);
  EXPECT_NE(svg.find("answer"), std::string::npos);
  EXPECT_NE(svg.find("nats per token: a"), std::string::npos);
  EXPECT_GT(first["surrogate"]["plans"], 5);
  EXPECT_TRUE(first["surrogate"]["error"].is_number());
  ExpectRefusal({"train", "stratnet", TwinPath(), "--profile", Path("other"), "--text", kText, "--plot",
                 Path("nowhere") + "/front.svg"},
                1, {"nowhere"});
  EXPECT_LE(first["rounds"].back()["evaluations"], 60);
  EXPECT_GT(first["rounds"].back()["hypervolume"], 0);
  EXPECT_GT(first["worst_loss_nats"], 0.5);
  // A greedy search is where it begins: StratNet learns from what that found, and the profile has its ranking.
  EXPECT_TRUE(first["rounds"].front()["greedy"]);
  EXPECT_FALSE(first["rounds"].back()["greedy"]);
  EXPECT_GT(first["work_in_whole_plans"], 1);
  // The same command goes on: what was measured is not measured again.
  const json more = Report(train);
  EXPECT_GE(more["rounds"].back()["hypervolume"], first["rounds"].back()["hypervolume"]);
  const json decided = Report({"memory", TwinPath(), "--workload", "4x256", "--memory-budget", "75%", "--profile",
                               profile, "--policy", "stratnet"});
  EXPECT_EQ(decided["policy"], "stratnet");
  EXPECT_LE(decided["total_bytes"], decided["budget_bytes"]);
  const json greedily = Report(
      {"memory", TwinPath(), "--workload", "4x256", "--memory-budget", "75%", "--profile", profile, "--policy", "gsi"});
  EXPECT_LE(greedily["total_bytes"], greedily["budget_bytes"]);
  const json compared =
      Report({"compare", TwinPath(), "--profile", profile, "--text", kText, "-c", "48", "--windows", "2", "-t", "1",
              "--splits", "none", "--candidates", "0", "--scenarios", Write("scenarios", "1x256 80%\n4x256 60%\n")});
  bool found = false;
  for (const json& policy : compared["policies"]) {
    found = found || (policy["policy"] == "stratnet" && policy["refusals"] == 0);
  }
  EXPECT_TRUE(found);
  // On other text the profile's losses would not be comparable.
  std::vector<std::string> other = train;
  other[8] = "40";
  ExpectRefusal(other, 1, {"--text", "ranked on"});
  ExpectRefusal({"train", "stratnet", TwinPath(), "--profile", profile}, 2, {"--text"});
}

}  // namespace
}  // namespace espalier::test
