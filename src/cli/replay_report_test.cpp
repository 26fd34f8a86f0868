#include "cli/replay_report.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/random_model.h"
#include "policy/data_free.h"

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

class ReplayReportTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string path = testing::TempDir() + "/replay_report_test.gguf";
    RandomModelOptions options;
    options.n_layer = 2;
    options.n_embd = 64;
    options.n_ff = 64;
    options.n_head = 2;
    options.n_head_kv = 2;
    options.n_vocab = 300;
    options.type = "F16";
    ASSERT_TRUE(GenerateRandomModel(options, path).ok());
    auto model = Model::Open(path);
    ASSERT_TRUE(model.ok()) << model.status().message();
    model_ = std::move(*model);
    placement_.policy = std::make_unique<DataFreePolicy>();
    placement_.survey.workload = Workload::Uniform(2, 100);
    placement_.plan = Plan::Dense(2);
    run_.trace_path = kHostile;
    run_.trace.name = kHostile;
    run_.trace.duration_seconds = 10;
    run_.model = model_.get();
    run_.placement = &placement_;
    ReplayReport& report = run_.report;
    report.seconds = 10;
    report.requests = 3;
    report.completed = 2;
    report.refused = 1;
    report.first_refusal = kHostile;
    report.generated_tokens = 50;
    report.good_tokens = 20;
    report.first_token = {2, 1.5, 2.5, 3.5, 4.5};
    report.course = {{0, 3000, 2000, 1000, 1, 0}, {5, UINT64_MAX, UINT64_MAX, 2000, 2, 7}};
    report.events = {{2, ServingEvent::Kind::kTransition, "budget", 3000, 2500, 1500, 0.25, kHostile},
                     {3, ServingEvent::Kind::kTrim, "", UINT64_MAX, 1500, 1500, 0, kHostile}};
  }

  std::shared_ptr<const Model> model_;
  Placement placement_;
  ReplayedRun run_;
};

TEST_F(ReplayReportTest, JsonHasTheFiguresWithTheirUnits) {
  const Json json = ToJson(run_);
  EXPECT_EQ(json["requests"]["total"], 3);
  EXPECT_EQ(json["requests"]["lost"], 0);
  EXPECT_EQ(json["tokens_per_second"], 5.0);
  EXPECT_EQ(json["goodput_tokens_per_second"], 2.0);
  EXPECT_EQ(json["time_to_first_token"]["p99_ms"], 3.5);
  EXPECT_TRUE(json["mean_predicted_loss_nats"].is_null());
  EXPECT_EQ(json["events"][0]["reason"], "budget");
  EXPECT_EQ(json["events"][0]["ms"], 0.25);
  EXPECT_EQ(json["events"][1]["kind"], "trim");
  EXPECT_FALSE(json["events"][1].contains("reason"));
  EXPECT_TRUE(json["events"][1]["limit_bytes"].is_null());
  EXPECT_EQ(json["course"]["waiting"], Json::parse("[0, 7]"));
  EXPECT_TRUE(json["course"]["limit_bytes"][1].is_null());
}

TEST_F(ReplayReportTest, ThePageIsWellFormedWhateverNamesAndMessagesAre) {
  const std::string page = ToHtml(run_);
  EXPECT_EQ(NestingProblem(page), "");
  EXPECT_EQ(page.find("<script"), std::string::npos);
  EXPECT_EQ(page.find('\x01'), std::string::npos);
  EXPECT_EQ(page.find("nan"), std::string::npos);
  EXPECT_EQ(page.find("http://"), page.find("http://www.w3.org/1999/xhtml"));  // nothing is loaded from elsewhere
  EXPECT_NE(page.find("<td>3.5</td>"), std::string::npos);
  run_.report = {};  // stopped before anything happened
  run_.report.stopped = true;
  EXPECT_EQ(NestingProblem(ToHtml(run_)), "");
}

}  // namespace
}  // namespace espalier
