// --profile, --policy, --max-loss and --ablation as a user meets them, with a small profile of the twin's.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/fingerprint.h"
#include "policy/data_free.h"
#include "profile/profile_file.h"
#include "support/cli.h"
#include "support/models.h"
#include "support/paths.h"

namespace espalier::test {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

using Arguments = std::vector<std::string>;

constexpr int kLayers = 6;
const std::string kText = DataPath("books-excerpt.txt");

// What the profile has measured: blocks dropped, loss. At workload 1x256 they take 93.6, 90.7, 80.7 and 72.0 % of the
// dense peak.
const std::vector<std::pair<std::string, double>> kMeasured = {
    {"f3", 0.125}, {"a3,f3", 0.25}, {"f2,f3,f4", 0.5}, {"a2,f2,a3,f3,a4,f4", 1.0}};

Profile TwinProfile() {
  const auto model = OpenOrFail(TwinPath());
  Profile profile;
  profile.model_fingerprint = *Fingerprint(*model);
  profile.model_name = model->display_name();
  profile.quantization = model->quantization();
  profile.n_layer = model->n_layer();
  profile.n_embd = model->hparams().n_embd;
  profile.means.n_embd = profile.n_embd;
  // Far from anything that blocks put out, so that it shows where they are used.
  for (int64_t i = 0; i < model->n_block() * profile.n_embd; ++i) {
    profile.means.values.push_back(static_cast<float>(20 * (i % 7 - 3)));
  }
  std::vector<BlockId> order = DataFreePolicy().DropOrder(kLayers);
  std::reverse(order.begin(), order.end() - 2);
  for (const char* method : {"gsi", "one-shot", "shortgpt", "mha-drop", "ffn-skip", "density", "random"}) {
    Ranking ranking;
    ranking.method = method;
    ranking.kv_cells = ranking.method == "density" ? 256 : 0;
    ranking.seed = ranking.method == "random" ? 1 : 0;
    ranking.drop_order = order;
    profile.Put(std::move(ranking));
  }
  MeasurementSet set;
  set.corpus = "books";
  set.tokens_hash = std::string(32, 'a');
  set.protocol = "gptq";
  set.window_tokens = 512;
  set.n_windows = 2;
  set.tokens_scored = 1000;
  set.key_type = set.value_type = "f16";
  Archive& archive = profile.ArchiveFor(set);
  for (const auto& [drop, loss] : kMeasured) {
    const WindowLoss windows[] = {{loss * 400, 1}, {loss * 600, 1}};
    EXPECT_TRUE(archive.Add(*Plan::ParseDrop(drop, kLayers), 0, windows));
  }
  profile.primary_set = set.Key();
  return profile;
}

class CliPolicies : public CliTest {
 protected:
  std::string WriteOrFail(const std::string& name, const Profile& profile) const {
    const Status status = WriteProfile(profile, Path(name));
    EXPECT_TRUE(status.ok()) << status.message();
    return Path(name);
  }

  Arguments Memory(const std::string& budget, const Arguments& more) const {
    return Arguments{"memory", TwinPath(), "--workload", "1x256", "--memory-budget", budget} + more;
  }

  Arguments Run(const Arguments& more) const {
    return Arguments{"run", TwinPath(), "-t", "1", "--temp", "0", "-n", "8", "-c", "256", "-p", "The old house"} + more;
  }
};

TEST_F(CliPolicies, TableServesTheBestMeasuredPlanThatFits) {
  const std::string profile = WriteOrFail("twin.profile", TwinProfile());
  const std::vector<std::string> budgets = {"100%", "95%", "92%", "85%", "75%"};
  for (size_t i = 0; i < budgets.size(); ++i) {
    const Json report = Report(Memory(budgets[i], {"--profile", profile}));
    EXPECT_EQ(report["policy"], "table");
    EXPECT_EQ(report["profile"], profile);
    EXPECT_EQ(report["ablation"], "zero");
    EXPECT_LE(report["total_bytes"], report["budget_bytes"]);
    EXPECT_EQ(report["plan"]["text"], i == 0 ? "dense" : Plan::ParseDrop(kMeasured[i - 1].first, kLayers)->ToText());
    EXPECT_EQ(report["predicted_loss_nats"], i == 0 ? 0 : kMeasured[i - 1].second);
    EXPECT_TRUE(report["predicted_loss_measured"]);
  }
  const Outcome text = Espalier(Memory("85%", {"--profile", profile}));
  EXPECT_NE(text.out.find("predicted loss 0.5000 nats per token (measured)"), std::string::npos) << text.out;
}

TEST_F(CliPolicies, LossesOfOtherKvTypesAreServedWithOneWarning) {
  const std::string profile = WriteOrFail("twin.profile", TwinProfile());
  const Arguments quantised = Memory("85%", {"--profile", profile, "-ctk", "q8_0"});
  const Outcome warned = Espalier(quantised);
  EXPECT_EQ(warned.code, 0);
  EXPECT_EQ(std::count(warned.err.begin(), warned.err.end(), '\n'), 1) << warned.err;
  EXPECT_NE(warned.err.find("warning: profile"), std::string::npos) << warned.err;
  EXPECT_NE(warned.err.find("f16 keys and f16 values, not q8_0 and f16"), std::string::npos) << warned.err;
  EXPECT_EQ(Espalier(Memory("85%", {"--profile", profile})).err, "");
  EXPECT_EQ(Espalier({"memory", TwinPath(), "--profile", profile, "-ctk", "q8_0"}).err, "") << "nothing was predicted";

  Profile both = TwinProfile();
  MeasurementSet set = both.primary()->set();
  set.key_type = "q8_0";
  const WindowLoss windows[] = {{70, 1}, {80, 1}};
  ASSERT_TRUE(both.ArchiveFor(set).Add(*Plan::ParseDrop("f2,f3,f4", kLayers), 0, windows));
  WriteOrFail("twin.profile", both);
  EXPECT_EQ(Espalier(quantised).err, "");
  EXPECT_EQ(Report(quantised)["predicted_loss_nats"], 0.15);
  EXPECT_EQ(Report(Memory("85%", {"--profile", profile}))["predicted_loss_nats"], 0.5);
}

TEST_F(CliPolicies, EveryPolicyDecidesAPlanThatFits) {
  const std::string profile = WriteOrFail("twin.profile", TwinProfile());
  for (const char* policy :
       {"table", "density", "gsi", "one-shot", "shortgpt", "mha-drop", "ffn-skip", "random", "data-free"}) {
    const Json report = Report(Memory("60%", {"--profile", profile, "--policy", policy}));
    EXPECT_EQ(report["policy"], policy);
    EXPECT_TRUE(report["fits"]);
    EXPECT_LE(report["total_bytes"], report["budget_bytes"]);
    EXPECT_FALSE(report["plan"]["keep"].empty());
  }
  const Json given = Report(Memory("100%", {"--profile", profile, "--policy", "static", "--drop", "f3"}));
  EXPECT_EQ(given["plan"]["text"], "f3=0");
  EXPECT_EQ(given["predicted_loss_nats"], 0.125);
  const Json estimated = Report(Memory("100%", {"--profile", profile, "--drop", "a3"}));
  EXPECT_EQ(estimated["predicted_loss_nats"], 0.25);
  EXPECT_FALSE(estimated["predicted_loss_measured"]);
  const Json unknown = Report(Memory("100%", {"--profile", profile, "--drop", "a0"}));
  EXPECT_TRUE(unknown["predicted_loss_nats"].is_null());
}

TEST_F(CliPolicies, RunAndEvalServeWithAProfile) {
  const std::string profile = WriteOrFail("twin.profile", TwinProfile());
  const Outcome text = Espalier(Run({"--profile", profile, "--memory-budget", "85%"}));
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_NE(text.err.find("policy table, predicted loss 0.5000"), std::string::npos) << text.err;
  EXPECT_EQ(text.err.find("warning"), std::string::npos) << text.err;
  const Json stepped = Report(Run({"--profile", profile, "--budget-schedule", "0:100%,2:75%,5:100%", "--ignore-eos"}));
  EXPECT_EQ(stepped["policy"], "table");
  EXPECT_EQ(stepped["budget_violations"], 0);
  EXPECT_EQ(stepped["transitions"].front()["predicted_loss_nats"], 1.0);
  EXPECT_TRUE(stepped["transitions"].front()["predicted_loss_measured"]);
  EXPECT_EQ(stepped["transitions"].back()["predicted_loss_nats"], 0);
  const Outcome told = Espalier(Run({"--profile", profile, "--budget-schedule", "0:100%,2:75%"}));
  EXPECT_NE(told.err.find("); predicted loss 1.0000 nats per token (measured)\n"), std::string::npos) << told.err;
  const Json eval = Report({"eval", TwinPath(), "--text", kText, "--windows", "1", "-c", "128", "-t", "1", "--profile",
                            profile, "--policy", "gsi", "--memory-budget", "80%"});
  EXPECT_EQ(eval["policy"], "gsi");
  EXPECT_EQ(eval["profile"], profile);
  EXPECT_NE(eval["plan"], "dense");
}

TEST_F(CliPolicies, AProfileBesideTheModelIsUsedAndSaidSo) {
  const std::string model = Path("twin.gguf");
  fs::create_symlink(TwinPath(), model);
  const Arguments memory = {"memory", model, "--workload", "1x256", "--memory-budget", "80%"};
  EXPECT_EQ(Report(memory)["policy"], "data-free");

  const std::string profile = WriteOrFail("twin.gguf.profile", TwinProfile());
  EXPECT_EQ(Report(memory)["policy"], "table");
  EXPECT_EQ(Espalier(memory).err,
            "espalier: using the profile beside the model: " + profile + " (--profile none: without)\n");
  const Outcome run =
      Espalier({"run", model, "-t", "1", "-n", "2", "-c", "64", "-p", "The old house", "--memory-budget", "80%"});
  EXPECT_EQ(run.code, 0);
  EXPECT_NE(run.err.find("using the profile beside the model: " + profile), std::string::npos) << run.err;
  const Json without = Report(memory + Arguments{"--profile", "none"});
  EXPECT_EQ(without["policy"], "data-free");
  EXPECT_TRUE(without["profile"].is_null());

  // Found, not asked for: what cannot be used is left out.
  Profile unranked = TwinProfile();
  unranked.archives.clear();
  unranked.rankings.clear();
  WriteOrFail("twin.gguf.profile", unranked);
  EXPECT_EQ(Report(memory)["policy"], "data-free");
  Profile other = TwinProfile();
  other.model_fingerprint = std::string(32, '0');
  WriteOrFail("twin.gguf.profile", other);
  const Outcome warned = Espalier(memory);
  EXPECT_EQ(warned.code, 0);
  EXPECT_NE(warned.err.find("warning: the profile beside the model is not used"), std::string::npos) << warned.err;
}

TEST_F(CliPolicies, MeansCountAsWeights) {
  const std::string profile = WriteOrFail("twin.profile", TwinProfile());
  const Json zero = Report(Memory("100%", {"--profile", profile, "--drop", "f3"}));
  const Json mean = Report(Memory("100%", {"--profile", profile, "--drop", "f3", "--ablation", "mean"}));
  EXPECT_EQ(mean["ablation"], "mean");
  EXPECT_GT(mean["global_weight_bytes"], zero["global_weight_bytes"]);
  EXPECT_TRUE(mean["predicted_loss_nats"].is_null()) << "measured with ablation zero only";
  const Arguments run = Run({"--profile", profile, "--drop", "f3"});
  EXPECT_NE(Report(run)["text"], Report(run + Arguments{"--ablation", "mean"})["text"]);
  Profile by_default = TwinProfile();
  by_default.ablation = Ablation::kMean;
  const std::string chosen = WriteOrFail("mean.profile", by_default);
  EXPECT_EQ(Report(Memory("100%", {"--profile", chosen, "--drop", "f3"}))["ablation"], "mean");
}

TEST_F(CliPolicies, TheQualityFloorNamesTheBudgetThatMeetsIt) {
  const std::string profile = WriteOrFail("twin.profile", TwinProfile());
  const Arguments floor = {"--profile", profile, "--max-loss", "0.3"};
  ExpectRefusal(Memory("75%", floor), 1, {"quality floor of 0.3", "1 nats per token", "table"});
  ExpectRefusal(Memory("60%", floor + Arguments{"--policy", "gsi"}), 1, {"quality floor of 0.3", "gsi"});
  const std::string message = Espalier(Memory("75%", floor)).err;
  const std::string mark = "needs a memory budget of ";
  // The process is not the same to the byte each time.
  const uint64_t enough = std::stoull(message.substr(message.find(mark) + mark.size())) + (1 << 20);
  const Json served = Report(Memory(std::to_string(enough), floor));
  EXPECT_LE(served["predicted_loss_nats"], 0.3);
  EXPECT_FALSE(served["plan"]["keep"].empty());
}

TEST_F(CliPolicies, BadRequestsAreRefusedInOneLine) {
  const std::string profile = WriteOrFail("twin.profile", TwinProfile());
  ExpectRefusal(Memory("80%", {"--profile", profile, "--policy", "magic"}), 1,
                {"magic", "table", "ffn-skip", "data-free", "static"});
  ExpectRefusal(Memory("80%", {"--policy", "gsi"}), 1, {"gsi", "--profile"});
  ExpectRefusal(Memory("80%", {"--max-loss", "0.5"}), 1, {"--max-loss", "--profile"});
  ExpectRefusal(Memory("80%", {"--profile", profile, "--max-loss", "-1"}), 2, {"--max-loss"});
  ExpectRefusal(Memory("80%", {"--profile", profile, "--policy", "gsi", "--drop", "a3"}), 1, {"gsi", "static"});
  ExpectRefusal(Memory("80%", {"--profile", Path("missing.profile")}), 1, {"missing.profile"});
  ExpectRefusal(Memory("80%", {"--profile", Write("text.profile", std::string(1000, 'x'))}), 1, {"text.profile"});
  ExpectRefusal(Memory("80%", {"--ablation", "mean"}), 1, {"mean", "--profile"});
  ExpectRefusal(Memory("80%", {"--profile", profile, "--ablation", "median"}), 1, {"median", "zero"});
  ExpectRefusal(Memory("1MiB", {"--profile", profile}), 1, {"1048576", "minimum of "});

  Profile poor = TwinProfile();
  poor.means = {};
  poor.rankings.clear();
  const std::string without = WriteOrFail("poor.profile", poor);
  ExpectRefusal(Memory("80%", {"--profile", without, "--ablation", "mean"}), 1, {"means", "poor.profile", "rank"});
  ExpectRefusal(Memory("80%", {"--profile", without, "--policy", "shortgpt"}), 1, {"shortgpt", "rank"});

  Profile other = TwinProfile();
  other.model_fingerprint = std::string(32, '0');
  ExpectRefusal(Memory("80%", {"--profile", WriteOrFail("other.profile", other)}), 1,
                {"other.profile", "another model", std::string(32, '0'), other.model_name});
}

TEST_F(CliPolicies, WhatADamagedProfileStillHoldsIsUsedWithAWarning) {
  const std::string profile = WriteOrFail("twin.profile", TwinProfile());
  const std::string whole = Slurp(profile);
  int warned = 0;
  for (size_t length = whole.size() - 1; length > whole.size() / 8; length -= whole.size() / 7) {
    Write("twin.profile", whole.substr(0, length));
    const Outcome outcome = Espalier(Memory("80%", {"--profile", profile, "--policy", "data-free"}));
    if (outcome.code == 0) {
      EXPECT_NE(outcome.err.find("espalier: warning: " + profile + ": "), std::string::npos) << outcome.err;
      ++warned;
    } else {
      EXPECT_EQ(outcome.code, 1);
      EXPECT_NE(outcome.err.find("twin.profile"), std::string::npos) << outcome.err;
    }
  }
  EXPECT_GT(warned, 0);
}

}  // namespace
}  // namespace espalier::test
