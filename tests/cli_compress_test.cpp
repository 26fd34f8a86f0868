// espalier compress, as a user runs it.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "support/cli.h"
#include "support/models.h"
#include "support/paths.h"
#include "text/libllama_reference.h"

namespace espalier::test {
namespace {

using nlohmann::json;

const std::string kText = DataPath("books-excerpt.txt");
const std::vector<std::string> kOnText = {"--text", kText, "-c", "48", "--windows", "2"};

std::vector<std::string> operator+(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class CompressTest : public CliTest {
 protected:
  // A small training; the same for all tests of this process.
  void SetUp() override {
    CliTest::SetUp();
    static std::string trained;
    profile_ = Path("profile");
    if (trained.empty()) {
      Report(std::vector<std::string>{"train", "stratnet", TwinPath(), "--profile", profile_, "-t", "1",
                                      "--evaluations", "40"} +
             kOnText);
      trained = Slurp(profile_);
      ASSERT_FALSE(trained.empty());
    }
    Write("profile", trained);
  }

  std::vector<std::string> Compress(const std::vector<std::string>& more) const {
    return std::vector<std::string>{"compress", TwinPath(), "--profile", profile_, "-t", "1"} + more;
  }

  std::string profile_;
};

TEST_F(CompressTest, ManyRequestsAreAnsweredTogetherAndBecomeFiles) {
  const std::string requests = Write("requests.jsonl",
                                     R"({"id": "file", "size_ratio": 0.8}
{"id": "bytes", "max_bytes": 11000000}
{"id": "served", "size_ratio": 0.75, "workload": "4x256"}

{"id": "good", "max_loss": 0.4}
{"id": "between", "preference": [0.4, 0.6]}
{"id": "fast", "max_latency_ms": 60000, "workload": "1x64"}
)");
  std::filesystem::create_directories(Path("models"));
  const json report = Report(Compress({"--requests", requests, "--output", Path("models")}));
  EXPECT_EQ(report["failed"], 0);
  ASSERT_EQ(report["requests"].size(), 6);
  std::map<std::string, json> by_id;
  for (const json& request : report["requests"]) {
    by_id[request["id"]] = request;
    const std::string path = request["output"];
    EXPECT_EQ(std::filesystem::file_size(path), request["output_bytes"].get<uint64_t>());
    if (request["bytes_of"] == "file") {
      // Foretold without making it: at most a little too large.
      EXPECT_LE(request["output_bytes"].get<uint64_t>(), request["bytes"].get<uint64_t>());
      EXPECT_GT(request["output_bytes"].get<uint64_t>() + 1000, request["bytes"].get<uint64_t>());
    }
    LibllamaOptions theirs;
    theirs.n_threads = 1;
    const auto loaded = LibllamaReference::Open(path, theirs);
    EXPECT_TRUE(loaded.ok()) << path << ": " << loaded.status().message();
  }
  EXPECT_LE(by_id["file"]["output_bytes"], by_id["file"]["limit_bytes"]);
  EXPECT_LE(by_id["bytes"]["output_bytes"], 11000000);
  EXPECT_LE(by_id["served"]["bytes"], by_id["served"]["limit_bytes"]);
  EXPECT_LE(by_id["good"]["upper_loss_nats"], 0.4);
  EXPECT_TRUE(by_id["fast"]["plan"]["keep"].empty());  // a minute is enough for all of it
  const json memory = Report({"memory", TwinPath(), "--workload", "4x256", "--plan", by_id["served"]["plan"]["text"],
                              "--profile", "none", "-t", "1"});
  EXPECT_EQ(memory["peak_bytes"], by_id["served"]["bytes"]);
}

TEST_F(CompressTest, OneRequestFromTheCommandLine) {
  const json report = Report(Compress({"--size-ratio", "0.7", "-o", Path("small.gguf")}));
  EXPECT_LE(std::filesystem::file_size(Path("small.gguf")), report["requests"][0]["limit_bytes"].get<uint64_t>());
  EXPECT_NE(Slurp(Path("small.gguf")).find("espalier.method"), std::string::npos);
  const Outcome text = Espalier(Compress({"--max-loss", "0.5"}));
  EXPECT_EQ(text.code, 0);
  EXPECT_NE(text.out.find("1 of 1 requests"), std::string::npos);
}

TEST_F(CompressTest, VerifiedAnswersWereMeasuredAndHold) {
  const std::string requests = Write("requests.jsonl",
                                     "{\"max_loss\": 0.15}\n{\"max_loss\": 0.6}\n{\"max_loss\": 1.5}\n"
                                     "{\"size_ratio\": 0.8}\n{\"size_ratio\": 0.65}\n");
  const json report = Report(Compress({"--requests", requests, "--verify"}) + kOnText);
  for (const json& request : report["requests"]) {
    ASSERT_GT(request["verified"]["plans"], 0);
    ASSERT_TRUE(request["measured_loss_nats"].is_number());
    if (request.contains("max_loss")) {
      EXPECT_LE(request["measured_loss_nats"], request["max_loss"]);
    }
  }
  // What was measured is in the profile, and not measured again; the surrogate knows more, and may think better of a
  // plan that it has not seen.
  const json again = Report(Compress({"--requests", requests, "--verify"}) + kOnText);
  int looked_at = 0;
  for (const json& request : again["requests"]) {
    looked_at += request["verified"]["plans"].get<int>();
  }
  EXPECT_LT(again["evaluations"], looked_at);
}

TEST_F(CompressTest, RivalsAnswerTheSameRequests) {
  const std::string requests =
      Write("requests.jsonl", "{\"size_ratio\": 0.8}\n{\"size_ratio\": 0.8, \"workload\": \"8x256\"}\n");
  for (const char* method : {"table", "one-shot", "gsi-chain", "gsi", "evolution"}) {
    SCOPED_TRACE(method);
    const json report = Report(
        Compress({"--requests", requests, "--method", method, "--test-text", kText, "--test-windows", "3"}) + kOnText);
    EXPECT_EQ(report["method"], method);
    for (const json& request : report["requests"]) {
      EXPECT_GT(request["test_loss_nats"], 0);
      EXPECT_LE(request["bytes"], request["limit_bytes"]);
      EXPECT_GT(request["measured_loss_nats"], 0);
    }
    if (std::string(method) == "gsi") {
      // Every round measures what is left.
      const auto dropped = report["requests"][0]["plan"]["keep"].size();
      EXPECT_GE(report["requests"][0]["evaluations"], 12.0 * static_cast<double>(dropped - 1));
    }
  }
  // Searching needs no profile.
  const json begun = Report(std::vector<std::string>{"compress", TwinPath(), "--profile", Path("begun"), "-t", "1",
                                                     "--method", "gsi", "--max-loss", "0.3"} +
                            kOnText);
  EXPECT_LE(begun["requests"][0]["measured_loss_nats"], 0.3);
  EXPECT_TRUE(std::filesystem::exists(Path("begun")));
}

TEST_F(CompressTest, FailuresAreNamedAndDoNotStopTheOthers) {
  const std::string requests = Write("requests.jsonl",
                                     "{\"size_ratio\": 0.8}\nnonsense\n{\"size_ratio\": 0.001}\n"
                                     "{\"size_ratio\": 0.9, \"workload\": \"1x100000\"}\n{\"max_loss\": 0.5}\n");
  std::filesystem::create_directories(Path("models"));
  const Outcome outcome = Espalier(Compress({"--requests", requests, "--output", Path("models"), "--json"}));
  EXPECT_EQ(outcome.code, 1);
  for (const char* part : {"line 2", "line 3", "below the least", "line 4", "trained for", "3 of 5 requests failed"}) {
    EXPECT_NE(outcome.err.find(part), std::string::npos) << part << "\n" << outcome.err;
  }
  const json report = json::parse(outcome.out);
  EXPECT_EQ(report["failed"], 3);
  EXPECT_TRUE(report["requests"][2].contains("error"));
  EXPECT_TRUE(std::filesystem::exists(Path("models") + "/line-1.gguf"));
  EXPECT_TRUE(std::filesystem::exists(Path("models") + "/line-5.gguf"));
  EXPECT_FALSE(std::filesystem::exists(Path("models") + "/line-3.gguf"));

  ExpectRefusal(Compress({"--requests", requests, "--output", Path("nowhere")}), 1, {"nowhere", "expected a folder"});
  ExpectRefusal(Compress({"--size-ratio", "0.7", "-o", Path("nowhere") + "/small.gguf"}), 1, {"nowhere"});
  ExpectRefusal(Compress({}), 1, {"--requests", "--size-ratio"});
  ExpectRefusal(Compress({"--size-ratio", "0.7", "--max-loss", "1"}), 1, {"found --size-ratio and --max-loss"});
  ExpectRefusal(Compress({"--size-ratio", "1.7"}), 1, {"size_ratio", "1.7"});
  ExpectRefusal(Compress({"--preference", "0.7,0.7"}), 1, {"preference"});
  ExpectRefusal(Compress({"--size-ratio", "0.7", "--verify"}), 1, {"--text"});
  ExpectRefusal(Compress({"--max-loss", "0.5", "--method", "table"}), 1, {"target in bytes", "max_loss"});
  ExpectRefusal(Compress({"--size-ratio", "0.36", "--method", "table"}), 1,
                {"expected a measured plan of at most 4982", "the smallest of "});
  ExpectRefusal(Compress({"--size-ratio", "0.7", "--method", "best"}), 2, {"best"});
  ExpectRefusal({"compress", TwinPath(), "--profile", Path("other"), "--size-ratio", "0.7"}, 1,
                {"other", "train stratnet"});
  EXPECT_FALSE(std::filesystem::exists(Path("other")));
}

TEST_F(CompressTest, AModelThatOnlyWholeLayersAreWrittenOfIsToldBeforeAnySearch) {
  const auto told = [&](const std::vector<std::string>& more, const std::vector<std::string>& output) {
    EXPECT_EQ(Espalier(std::vector<std::string>{"generate-model", "--arch", "qwen3", "--layers", "2",
                                                "--embedding-length", "64", "--feed-forward-length", "128", "--heads",
                                                "2", "--vocab", "300", "--type", "F16", "-o", Path("qwen3.gguf")} +
                       more)
                  .code,
              0);
    const std::vector<std::string> compress = {"compress", Path("qwen3.gguf"), "--size-ratio", "0.8"};
    const Outcome outcome = Espalier(compress + output);
    EXPECT_NE(outcome.err.find("no profile there"), std::string::npos) << "before any search: " << outcome.err;
    return outcome.err;
  };
  const std::vector<std::string> output = {"-o", Path("small.gguf")};
  const std::string warning = "can only be written with both halves in every layer";
  const std::string untied = told({}, output);
  EXPECT_NE(untied.find("qwen3.gguf " + warning), std::string::npos) << untied;
  EXPECT_NE(untied.find("'output.weight'"), std::string::npos) << untied;
  EXPECT_NE(untied.find("drop whole layers"), std::string::npos) << untied;
  EXPECT_EQ(told({}, {}).find(warning), std::string::npos) << "nothing is written";
  EXPECT_EQ(told({"--tied"}, output).find(warning), std::string::npos) << "openelm will do";
}

TEST_F(CompressTest, InputsThatAreWrongCostNothing) {
  // Files that are written never take the place of the profile.
  const std::string before = Slurp(profile_);
  ExpectRefusal(Compress({"--size-ratio", "0.8", "-o", profile_}), 1, {"profile", "expected another file"});
  ExpectRefusal({"export", TwinPath(), "--drop", "a3", "--profile", profile_, "-o", profile_}, 1,
                {"profile", "expected another file"});
  EXPECT_EQ(Slurp(profile_), before);
  ExpectRefusal(std::vector<std::string>{"train", "stratnet", TwinPath(), "--profile", "none"} + kOnText, 1, {"none"});
  // Seeds are networks of their own.
  ExpectRefusal(Compress({"--size-ratio", "0.8", "--seed", "99"}), 1, {profile_, "seed 99", "there are: 1"});
  ExpectRefusal(Compress({"--size-ratio", "0.8", "--seed", "-1"}), 2, {"--seed"});
  ExpectRefusal(Compress({"--size-ratio", "0.8", "--method", "table", "--verify"}) + kOnText, 1, {"--verify", "table"});
  // Texts are read before anything is begun or measured.
  ExpectRefusal(Compress({"--size-ratio", "0.8", "--test-text", Path("nothing")}), 1, {"nothing"});
  ExpectRefusal({"compress", TwinPath(), "--profile", Path("new"), "--method", "gsi", "--size-ratio", "0.7", "--text",
                 Path("nothing")},
                1, {"nothing"});
  ExpectRefusal({"train", "stratnet", TwinPath(), "--profile", Path("new"), "--text", Path("nothing")}, 1, {"nothing"});
  EXPECT_FALSE(std::filesystem::exists(Path("new")));
  EXPECT_FALSE(std::filesystem::exists(Path("new.journal")));
}

TEST_F(CompressTest, MeansAreCountedWhereTheyAreServed) {
  const std::string means = Path("means");
  Report(std::vector<std::string>{"rank", TwinPath(), "-o", means, "--ablation", "mean", "--minutes", "0", "-t", "1"} +
         kOnText);
  Report(
      std::vector<std::string>{"train", "stratnet", TwinPath(), "--profile", means, "-t", "1", "--evaluations", "5"} +
      kOnText);
  const json report =
      Report({"compress", TwinPath(), "--profile", means, "-t", "1", "--size-ratio", "0.8", "--workload", "4x256"});
  const json memory = Report({"memory", TwinPath(), "--workload", "4x256", "--plan",
                              report["requests"][0]["plan"]["text"], "--profile", means, "-t", "1"});
  EXPECT_EQ(memory["peak_bytes"], report["requests"][0]["bytes"]);
  const json without = Report({"memory", TwinPath(), "--workload", "4x256", "--plan",
                               report["requests"][0]["plan"]["text"], "--profile", "none", "-t", "1"});
  EXPECT_GT(memory["peak_bytes"], without["peak_bytes"]);
}

TEST_F(CompressTest, ProfileWithoutAStratNet) {
  Report(std::vector<std::string>{"compress", TwinPath(), "--profile", Path("bare"), "-t", "1", "--method", "one-shot",
                                  "--size-ratio", "0.8"} +
         kOnText);
  ExpectRefusal({"compress", TwinPath(), "--profile", Path("bare"), "--size-ratio", "0.7"}, 1,
                {"no StratNet", "train stratnet"});
}

}  // namespace
}  // namespace espalier::test
