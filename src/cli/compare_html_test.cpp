#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "cli/compare_report.h"
#include "control/fake_comparison_for_test.h"

namespace espalier {
namespace {

constexpr const char* kHostile = "<script>alert('x')</script>&\"\x01\xff";

// What is wrong with the nesting of the page's elements; empty if nothing is.
std::string NestingProblem(const std::string& page) {
  std::vector<std::string> open;
  for (size_t at = page.find('<'); at != std::string::npos; at = page.find('<', at)) {
    const size_t end = page.find('>', at);
    if (end == std::string::npos) {
      return "a tag without an end: " + page.substr(at, 60);
    }
    const std::string tag = page.substr(at + 1, end - at - 1);
    at = end;
    if (tag.find('<') != std::string::npos) {
      return "'<' inside a tag: " + tag;
    }
    if (tag.starts_with('!') || tag.ends_with('/')) {
      continue;
    }
    if (!tag.starts_with('/')) {
      open.push_back(tag.substr(0, tag.find_first_of(" \n")));
    } else if (open.empty() || open.back() != tag.substr(1)) {
      return "unexpected <" + tag + ">, open is " + (open.empty() ? "nothing" : open.back());
    } else {
      open.pop_back();
    }
  }
  return open.empty() ? "" : "never closed: " + open.back();
}

Contestant Scripted(const std::string& name, const std::vector<std::string>& drops) {
  std::vector<Plan> plans;
  for (const std::string& blocks : drops) {
    plans.push_back(Dropping(blocks));
  }
  Contestant contestant = {name, {}};
  contestant.instances.push_back(std::make_unique<ScriptedPolicy>(std::move(plans)));
  return contestant;
}

CompareReport HostileReport() {
  FunctionEvaluator evaluator(kFakeLayers, 2, Additive({{0.1, 0.25, 0.4, 0.8}, {0.3, 0.25, 0.4, 0.8}}));
  Lineup lineup;
  lineup.contestants.push_back(Scripted("table", {"a0", "f0"}));
  lineup.contestants.push_back(Scripted("gsi", {"a1"}));  // refuses where f1 would have to go
  lineup.missing.emplace_back(std::string("density: ") + kHostile);
  const std::vector<Budget> budgets = {Budget::Percent(95), Budget::Percent(80), Budget::Percent(100)};
  CompareReport report;
  report.model_name = kHostile;
  report.quantization = "F16";
  report.profile = kHostile;
  report.scenarios = kHostile;
  report.warnings = {kHostile};
  std::vector<ScenarioMemory> scenarios;
  scenarios.push_back(FakeScenario(budgets));
  scenarios.push_back(FakeScenario(budgets, 1000));
  auto comparison = ComparePolicies(std::move(lineup), nullptr, std::move(scenarios), &evaluator, {});
  EXPECT_TRUE(comparison.ok());
  report.comparison = std::move(*comparison);
  report.comparison.set.corpus = kHostile;
  Ladder ladder;
  ladder.policy = "table";
  ladder.subject_is_source = true;
  ladder.workloads = {Workload::Uniform(1, 100)};
  ladder.rungs = {{"F16", kHostile, {13400}, {}, 7}, {kHostile, "", {6900}, {0.1, 0.09, 0.11}, 8}};
  ladder.steps = {{0, 0, 1, Dropping("a0"), 6900, {0.05, 0.04, 0.06}, {0.5, 0.4, 0.6}}, {0, 0, 1, {}, 0, {}, {}}};
  ladder.points = {{0, "80%", Dropping("a0"), 12200, {0.2, 0.1, 0.3}}};
  ladder.statements = {{0, 0, 0.5, kHostile}};
  report.ladder = ladder;
  ladder.kind = LadderKind::kKv;
  ladder.notes = {kHostile};
  report.kv_ladder = ladder;
  return report;
}

TEST(CompareHtml, IsWellFormedWhateverFilesAreCalled) {
  const std::string page = ToHtml(HostileReport());
  EXPECT_EQ(NestingProblem(page), "");
  EXPECT_EQ(page.find("<script"), std::string::npos);
  EXPECT_EQ(page.find('\x01'), std::string::npos);
  EXPECT_NE(page.find("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"), std::string::npos);
}

TEST(CompareHtml, NeedsNothingFromTheNetwork) {
  const std::string page = ToHtml(HostileReport());
  for (const char* reference : {"src=", "href=", "url(", "@import", "https://"}) {
    EXPECT_EQ(page.find(reference), std::string::npos) << reference;
  }
  EXPECT_NE(page.find("prefers-color-scheme: dark"), std::string::npos);
  EXPECT_NE(page.find("width=device-width"), std::string::npos);
}

TEST(CompareHtml, NoCoordinateIsNotANumber) {
  const std::string page = ToHtml(HostileReport());
  EXPECT_EQ(page.find("nan"), std::string::npos);
  EXPECT_EQ(page.find("inf"), std::string::npos);
}

TEST(CompareHtml, TellsRefusalsAndWhatIsMissing) {
  const std::string page = ToHtml(HostileReport());
  EXPECT_NE(page.find("refused: nothing scripted fits"), std::string::npos);
  EXPECT_NE(page.find("Not compared: density"), std::string::npos);
  EXPECT_NE(page.find("Winner: table"), std::string::npos);
  EXPECT_NE(page.find("2 of 6 cells hold the dense plan"), std::string::npos);
}

TEST(CompareHtml, EachLadderHasASectionOfItsOwn) {
  CompareReport report = HostileReport();
  EXPECT_NE(ToHtml(report).find("<h2>Quantisation ladder</h2>"), std::string::npos);
  EXPECT_NE(ToHtml(report).find("KL(KV F16 dense || model)"), std::string::npos);
  report.ladder.reset();
  EXPECT_EQ(ToHtml(report).find("Quantisation ladder"), std::string::npos);
  EXPECT_NE(ToHtml(report).find("<h2>KV ladder</h2>"), std::string::npos);
}

TEST(CompareHtml, AComparisonWithoutAnyRatioIsStillAPage) {
  FunctionEvaluator evaluator(kFakeLayers, 1, Additive({{0.1, 0.25, 0.4, 0.8}}));
  CompareReport report;
  Lineup lineup;
  lineup.contestants.push_back(Scripted("table", {"a0"}));
  std::vector<ScenarioMemory> scenarios;
  scenarios.push_back(FakeScenario({Budget::Bytes(1)}));
  auto comparison = ComparePolicies(std::move(lineup), nullptr, std::move(scenarios), &evaluator, {});
  ASSERT_TRUE(comparison.ok());
  report.comparison = std::move(*comparison);
  const std::string page = ToHtml(report);
  EXPECT_EQ(NestingProblem(page), "");
  EXPECT_EQ(page.find("nan"), std::string::npos);
  EXPECT_NE(page.find("nothing to rank"), std::string::npos);
  EXPECT_NE(page.find("In 1 of 1 cells every policy refuses"), std::string::npos);
}

}  // namespace
}  // namespace espalier
