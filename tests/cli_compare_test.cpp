// espalier compare as a user meets it: every policy in every cell within its bytes, nothing measured twice, a page that
// stands alone, and the ladders of weights and of the KV cache.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "eval/plan_evaluator.h"
#include "eval/windows.h"
#include "profile/profile_file.h"
#include "profile/text_sketch.h"
#include "support/cli.h"
#include "support/models.h"
#include "support/paths.h"
#include "text/tokenizer.h"

namespace espalier::test {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

const std::string kExcerpt = DataPath("books-excerpt.txt");
constexpr int64_t kWindow = 64;

std::vector<std::string> Types(const Json& ladder) {
  std::vector<std::string> types;
  for (const Json& rung : ladder["rungs"]) {
    types.push_back(rung["type"]);
  }
  return types;
}

class CompareTest : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    const std::string text = Slurp(kExcerpt);
    calibration_ = Write("calibration.txt", text.substr(0, text.size() / 2));
    test_ = Write("test.txt", text.substr(text.size() / 2));
    scenarios_ = Write("scenarios.txt", "# two sizes of KV\n1x64 85% 70%\n8x512 85%\n");
  }

  // A profile with two windows of calibration: single blocks and neighbours dropped, and a few rankings.
  std::string MakeProfile(const std::string& model_path = TwinPath()) const {
    const auto model = OpenOrFail(model_path);
    const auto tokenizer = Tokenizer::Open(*model);
    const auto windows = CutWindows(**tokenizer, kWindow, "calibration", Slurp(calibration_),
                                    {.window_tokens = kWindow, .max_windows = 2, .spread = true});
    EXPECT_TRUE(windows.ok()) << windows.status().message();
    RecoveryNotes notes;
    const auto store = ProfileStore::Open(Path("twin.profile"), *model, &notes);
    EXPECT_TRUE(store.ok()) << store.status().message();
    PlanEvaluatorOptions options;
    options.engine.n_threads = 1;
    const auto evaluator = PlanEvaluator::Create(model, *windows, options, store->get());
    EXPECT_TRUE(evaluator.ok()) << evaluator.status().message();
    for (int b = 0; b < model->n_block(); ++b) {
      Plan plan = Plan::Dense(model->n_layer());
      for (int dropped = b; dropped < std::min(b + 4, model->n_block()); ++dropped) {
        plan.Drop({dropped});
        EXPECT_TRUE((*evaluator)->Measure(plan).ok());
      }
    }
    Profile& profile = (*store)->profile();
    profile.primary_set = (*evaluator)->set().Key();
    profile.Put(SketchText("calibration", (*evaluator)->set().tokens_hash, windows->tokens));
    for (const auto& [method, seed] :
         std::vector<std::pair<std::string, uint64_t>>{{"gsi", 0}, {"one-shot", 0}, {"random", 1}, {"random", 2}}) {
      Ranking ranking = {method, 0, seed};
      for (int b = 0; b < model->n_block(); ++b) {
        ranking.drop_order.push_back({(b * 5 + static_cast<int>(seed)) % model->n_block()});
        ranking.score.push_back(b);
      }
      profile.Put(ranking);
    }
    EXPECT_TRUE((*store)->Save().ok());
    return Path("twin.profile");
  }

  std::vector<std::string> Command(const std::string& profile, const std::string& text, int windows = 2) const {
    return {"compare",     "twin",    "--profile", profile,
            "--text",      text,      "-c",        std::to_string(kWindow),
            "-t",          "1",       "--windows", std::to_string(windows),
            "--scenarios", scenarios_};
  }

  std::string calibration_, test_, scenarios_;
};

TEST_F(CompareTest, EveryPolicyKeepsItsBudgetInEveryCellAndNothingIsMeasuredTwice) {
  const std::string profile = MakeProfile();
  const Json report = Report(Command(profile, test_));
  EXPECT_TRUE(report["warnings"].empty()) << report["warnings"];
  ASSERT_EQ(report["cells"].size(), 3u);
  std::set<std::string> names;
  for (const Json& cell : report["cells"]) {
    ASSERT_FALSE(cell["best_known"].is_null());
    for (const Json& policy : cell["policies"]) {
      names.insert(policy["policy"].get<std::string>());
      ASSERT_FALSE(policy["refused"].get<bool>()) << policy;
      for (const Json& plan : policy["plans"]) {
        EXPECT_LE(cell["process_bytes"].get<uint64_t>() + plan["peak_bytes"].get<uint64_t>(),
                  cell["budget_bytes"].get<uint64_t>());
      }
      EXPECT_GE(policy["ratio_to_best_known"]["value"].get<double>(), 1.0) << policy;
      EXPECT_LE(policy["loss_nats"]["low"], policy["loss_nats"]["value"]);
      EXPECT_LE(policy["loss_nats"]["value"], policy["loss_nats"]["high"]);
      EXPECT_GT(policy["perplexity"].get<double>(), 1.0);
    }
  }
  for (const char* name : {"table", "gsi", "one-shot", "random", "data-free"}) {
    EXPECT_TRUE(names.contains(name)) << name;
  }
  EXPECT_FALSE(names.contains("shortgpt"));
  EXPECT_NE(report["missing_policies"].dump().find("shortgpt"), std::string::npos);
  EXPECT_GT(report["plans_measured"].get<int>(), 0);

  const Json again = Report(Command(profile, test_));
  EXPECT_EQ(again["plans_measured"], 0);
  ASSERT_EQ(again["policies"].size(), report["policies"].size());
  for (size_t i = 0; i < report["policies"].size(); ++i) {
    EXPECT_EQ(again["policies"][i]["policy"], report["policies"][i]["policy"]);
    EXPECT_EQ(again["policies"][i]["geometric_mean_ratio"], report["policies"][i]["geometric_mean_ratio"]);
  }
}

TEST_F(CompareTest, WarnsOfATextThatTheProfileWasMadeWith) {
  const std::string profile = MakeProfile();
  const Json same = Report(Command(profile, calibration_));
  EXPECT_NE(same["warnings"].dump().find("this is the text that the profile was made with"), std::string::npos);
  std::vector<std::string> longer = Command(profile, calibration_, 4);
  const Json overlapping = Report(longer);
  EXPECT_NE(overlapping["warnings"].dump().find("overlaps"), std::string::npos) << overlapping["warnings"];
  longer.insert(longer.end(), {"--splits", "none"});
  EXPECT_TRUE(Report(longer)["warnings"].empty());
}

TEST_F(CompareTest, WritesAPageThatStandsAlone) {
  const std::string profile = MakeProfile();
  const std::vector<std::string> command =
      Command(profile, test_) + std::vector<std::string>{"--html", Path("page.html")};
  const Outcome outcome = Espalier(command);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("Winner: "), std::string::npos);
  const std::string page = Slurp(Path("page.html"));
  EXPECT_TRUE(page.starts_with("<!DOCTYPE html>"));
  EXPECT_TRUE(page.ends_with("</html>\n"));
  EXPECT_EQ(page.find("<script"), std::string::npos);
  for (const char* section : {"Loss over best known", "Loss against bytes", "Which blocks stay", "All cells"}) {
    EXPECT_NE(page.find(section), std::string::npos) << section;
  }
}

TEST_F(CompareTest, TheLadderPutsQuantisationBesidePruning) {
  const std::string profile = MakeProfile();
  const std::vector<std::string> ladder = {"--ladder",    TwinPath(),     "--ladder-folder",
                                           Path("rungs"), "--candidates", "0"};
  const Json report = Report(Command(profile, test_) + ladder)["ladder"];
  double last_loss = -1;
  for (const Json& rung : report["rungs"]) {
    EXPECT_GE(rung["loss_nats"]["value"].get<double>(), 0.0);
    last_loss = rung["loss_nats"]["value"];
  }
  EXPECT_EQ(Types(report), (std::vector<std::string>{"F16", "Q8_0", "Q6_K", "Q4_K_M", "Q3_K_M", "Q2_K"}));
  EXPECT_EQ(report["rungs"][0]["loss_nats"]["value"], 0.0);
  EXPECT_GT(last_loss, report["rungs"][1]["loss_nats"]["value"].get<double>());
  ASSERT_EQ(report["statements"].size(), 2u);  // 1x64 and 8x512
  EXPECT_EQ(report["steps"].size(), 10u);
  for (const Json& step : report["steps"]) {
    if (!step["plan"].is_null()) {
      EXPECT_LE(step["pruned_bytes"], step["smaller_dense_bytes"]);
    }
  }
  EXPECT_EQ(report["points"].size(), 3u);
  // The subject is the source: its points are measured against the same model as the cells.
  EXPECT_EQ(std::distance(fs::directory_iterator(Path("rungs")), fs::directory_iterator()), 5);
}

TEST_F(CompareTest, TheKvLadderPutsSmallerKvBesidePruning) {
  const std::string profile = MakeProfile();
  const Json report = Report(Command(profile, test_));
  const Json& ladder = report["kv_ladder"];
  EXPECT_TRUE(report["ladder"].is_null());
  EXPECT_EQ(ladder["policy"], "table");
  EXPECT_TRUE(ladder["notes"].empty());
  ASSERT_EQ(Types(ladder), (std::vector<std::string>{"f16", "q8_0", "q4_0"}));
  const std::vector<std::string> workloads = {"1x64", "8x512"};
  for (const Json& rung : ladder["rungs"]) {
    const std::string type = rung["type"];
    for (size_t i = 0; i < workloads.size(); ++i) {
      const Json memory = Report({"memory", "twin", "-t", "1", "-w", workloads[i], "-ctk", type, "-ctv", type});
      EXPECT_EQ(rung["dense_kv_bytes"][i], memory["kv_bytes"]) << type << " at " << workloads[i];
      // The backend's scratch is what the heap grew by when it was measured: a few kB more or less in each process.
      EXPECT_NEAR(rung["dense_peak_bytes"][i].get<double>(), memory["dense_peak_bytes"].get<double>(), 8192)
          << type << " at " << workloads[i];
    }
  }
  const auto loss = [&](size_t rung) { return ladder["rungs"][rung]["loss_nats"]["value"].get<double>(); };
  EXPECT_EQ(loss(0), 0);
  EXPECT_GT(loss(1), 0);
  EXPECT_GT(loss(2), loss(1));
  EXPECT_EQ(ladder["rungs"][0]["perplexity"], report["perplexity_dense"]);
  ASSERT_EQ(ladder["steps"].size(), 4u);
  for (const Json& step : ladder["steps"]) {
    ASSERT_FALSE(step["plan"].is_null()) << step;
    EXPECT_LE(step["pruned_bytes"], step["smaller_dense_bytes"]);
    const bool saves = !step["plan"]["keep"].empty();
    EXPECT_TRUE(saves || step["workload"] == "1x64") << step;
    EXPECT_EQ(step["pruning_wins"], saves && step["ratio"]["value"].get<double>() < 1);
  }
  EXPECT_EQ(ladder["statements"].size(), 2u);
  // The model's own curve is what table does in the cells.
  ASSERT_EQ(ladder["points"].size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    for (const Json& policy : report["cells"][i]["policies"]) {
      if (policy["policy"] == "table") {
        EXPECT_EQ(ladder["points"][i]["loss_nats"], policy["loss_nats"]);
        EXPECT_EQ(ladder["points"][i]["peak_bytes"], policy["peak_bytes"]);
      }
    }
  }
}

TEST_F(CompareTest, TheKvLadderIsInTextAndOnThePageUnlessItIsSwitchedOff) {
  const std::string profile = MakeProfile();
  const std::vector<std::string> command =
      Command(profile, test_) + std::vector<std::string>{"--html", Path("page.html")};
  const Outcome with = Espalier(command);
  ASSERT_EQ(with.code, 0) << with.err;
  for (const char* part : {"KV ladder, loss against KV f16 dense; pruned by table", "q8_0 to q4_0", "1x64: pruning "}) {
    EXPECT_NE(with.out.find(part), std::string::npos) << part << " in " << with.out;
  }
  const std::string page = Slurp(Path("page.html"));
  EXPECT_NE(page.find("<h2>KV ladder</h2>"), std::string::npos);
  EXPECT_NE(page.find("KV q8_0 pruned to the bytes of KV q4_0"), std::string::npos);
  const Outcome without = Espalier(command + std::vector<std::string>{"--no-kv-ladder"});
  ASSERT_EQ(without.code, 0) << without.err;
  EXPECT_EQ(without.out.find("KV ladder"), std::string::npos);
  EXPECT_EQ(Slurp(Path("page.html")).find("KV ladder"), std::string::npos);
}

TEST_F(CompareTest, TheKvLadderBeginsWithTheTypesThatAreAskedFor) {
  const std::string profile = MakeProfile();
  const auto ladder = [&](const std::string& keys, const std::string& values) -> Json {
    return Report(Command(profile, test_) + std::vector<std::string>{"-ctk", keys, "-ctv", values})["kv_ladder"];
  };
  const Json unlike = ladder("q8_0", "f16");
  EXPECT_EQ(Types(unlike), (std::vector<std::string>{"q8_0/f16", "q8_0", "q4_0"}));
  EXPECT_NE(unlike["notes"].dump().find("q8_0 and f16"), std::string::npos);
  EXPECT_EQ(unlike["rungs"][0]["loss_nats"]["value"], 0.0);
  EXPECT_GT(unlike["rungs"][1]["loss_nats"]["value"], 0.0);
  // q8_0 for both would take more than q8_0 and q4_0.
  EXPECT_EQ(Types(ladder("q8_0", "q4_0")), (std::vector<std::string>{"q8_0/q4_0", "q4_0"}));
  const Json smallest = ladder("q4_0", "q4_0");
  EXPECT_EQ(Types(smallest), (std::vector<std::string>{"q4_0"}));
  EXPECT_NE(smallest["notes"].dump().find("no KV type is smaller than q4_0"), std::string::npos);
  EXPECT_TRUE(smallest["statements"].empty());
}

TEST_F(CompareTest, HeadsThatCannotHaveQuantisedKvLeaveThoseRungsOut) {
  RandomModelOptions shape;
  shape.n_embd = 96;
  shape.n_head = 2;  // of 48
  shape.n_ctx = 512;
  const std::string model = RandomModel("heads-of-48", shape);
  calibration_ = Write("calibration.txt", Slurp(kExcerpt).substr(0, 1000));
  test_ = Write("test.txt", Slurp(kExcerpt).substr(1000, 1000));
  std::vector<std::string> command = Command(MakeProfile(model), test_);
  command[1] = model;
  const Json ladder = Report(command)["kv_ladder"];
  EXPECT_EQ(Types(ladder), (std::vector<std::string>{"f16"}));
  ASSERT_EQ(ladder["notes"].size(), 2u);
  EXPECT_NE(ladder["notes"][0].dump().find("KV q8_0 is left out"), std::string::npos);
  EXPECT_NE(ladder["notes"][0].dump().find("a multiple of 32 elements, found 48"), std::string::npos);
}

TEST_F(CompareTest, RefusesInOneLineWhatItCannotUse) {
  const std::string profile = MakeProfile();
  const auto with = [&](const std::vector<std::string>& more) { return Command(profile, test_) + more; };
  ExpectRefusal(Command(Path("nothing.profile"), test_), 1, {"nothing.profile", "no such profile", "espalier rank"});
  ExpectRefusal({"compare", "reference", "--profile", profile, "--text", test_}, 1, {"twin.profile"});
  ExpectRefusal(with({"--html", Path("no/such/folder.html")}), 1, {"folder.html"});
  ExpectRefusal(Command(profile, Write("empty.txt", "")), 1, {"empty.txt"});
  ExpectRefusal(
      {"compare", "twin", "--profile", profile, "--text", test_, "--scenarios", Write("bad.txt", "8x512 lots\n")}, 1,
      {"bad.txt line 1, field 2", "'lots'"});
  ExpectRefusal(with({"--ladder", Path("none.gguf")}), 1, {"none.gguf"});
  ExpectRefusal(with({"--ladder", ReferencePath(), "--ladder-folder", Path("rungs")}), 1,
                {"ladder source", "16 layers"});
  ExpectRefusal({"compare", "twin", "--profile", profile}, 2, {"--text"});
}

}  // namespace
}  // namespace espalier::test
