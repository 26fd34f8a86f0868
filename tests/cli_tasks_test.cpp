// Zero-shot tasks through the program, sentence by sentence against libllama.
#include <gmock/gmock.h>

#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "eval/scoring.h"
#include "support/cli.h"
#include "support/models.h"
#include "support/paths.h"
#include "text/libllama_reference.h"
#include "text/tokenizer.h"

namespace espalier::test {
namespace {

using Json = nlohmann::json;

const std::string kBlimp = DataPath("blimp-excerpt.jsonl");
// Many items share a batch here, the oracle computes one request at a time: kernels round differently for other shapes,
// and the worst seen of a thousand requests was 0.012 nats. A token too many or too few moves a sum by whole nats.
constexpr double kBetweenShapes = 0.03;
// The choices have one, two and several tokens, and share their beginnings in different ways.
constexpr const char* kChoices =
    R"({"task": "choice", "context": "The house stood on a", "choices": ["hill", "hill by the sea", "hat"], "gold": 0})"
    "\n"
    R"({"task": "choice", "context": "", "choices": ["It was dark.", "It was", "Dark was it."], "gold": 1})"
    "\n"
    R"({"task": "choice", "context": "“Who is there?” he \n", "choices": ["said.", "naïve"], "gold": 0})"
    "\n"
    R"({"task": "partial", "contexts": ["He gave the book to John, and John", "He gave the book to Mary, and she"],)"
    R"( "continuation": "thanked him for it.", "gold": 1})"
    "\n";

std::vector<Json> Lines(const std::string& text) {
  std::vector<Json> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    lines.push_back(Json::parse(line));
  }
  return lines;
}

class Oracle {
 public:
  explicit Oracle(const std::string& path) {
    LibllamaOptions options;
    options.n_threads = 1;
    auto libllama = LibllamaReference::Open(path, options);
    EXPECT_TRUE(libllama.ok()) << libllama.status().message();
    libllama_ = std::move(*libllama);
  }

  // Of the tokens from n_context on, in a context of their own.
  double LogLikelihood(const std::vector<int32_t>& tokens, size_t n_context) {
    libllama_->ClearMemory();
    const auto rows = libllama_->Decode(std::span(tokens).first(tokens.size() - 1), /*all_logits=*/true);
    EXPECT_TRUE(rows.ok()) << rows.status().message();
    const auto n_vocab = static_cast<size_t>(libllama_->n_vocab());
    double sum = 0;
    for (size_t i = n_context; i < tokens.size(); ++i) {
      sum -= NegativeLogLikelihood(rows->subspan((i - 1) * n_vocab, n_vocab), tokens[i]);
    }
    return sum;
  }

 private:
  std::unique_ptr<LibllamaReference> libllama_;
};

using CliTasksTest = CliTest;

TEST_F(CliTasksTest, LogLikelihoodsAreLibllamas) {
  const std::string choices = Write("choices.jsonl", kChoices);
  const std::string samples = Path("samples.jsonl");
  Report({"eval", TwinPath(), "-t", "1", "--tasks", kBlimp + "," + choices, "--samples", samples});
  const auto model = OpenOrFail(TwinPath());
  const auto tokenizer = Tokenizer::Open(*model);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  Oracle oracle(TwinPath());
  const auto pairs = Lines(Slurp(kBlimp));
  const auto scored = Lines(Slurp(samples));
  ASSERT_EQ(scored.size(), pairs.size() + 4);
  for (size_t i = 0; i < scored.size(); ++i) {
    for (size_t r = 0; r < scored[i]["requests"].size(); ++r) {
      const Json& request = scored[i]["requests"][r];
      const auto tokens = request["tokens"].get<std::vector<int32_t>>();
      const auto n_context = request["context_tokens"].get<size_t>();
      EXPECT_NEAR(request["log_likelihood_nats"], oracle.LogLikelihood(tokens, n_context), kBetweenShapes) << request;
      if (i < pairs.size()) {  // from nothing: BOS, then the sentence after a space
        const std::string sentence = pairs[i][r == 0 ? "good" : "bad"];
        auto expected = *(*tokenizer)->Encode(" " + sentence, /*add_special=*/true, /*parse_special=*/false);
        EXPECT_EQ(tokens, expected);
        EXPECT_EQ(n_context, 1u);
      } else {
        const std::string text = request["context"].get<std::string>() + request["continuation"].get<std::string>();
        EXPECT_EQ((*tokenizer)->Decode(std::span(tokens).subspan(1)), text);
      }
    }
  }
}

TEST_F(CliTasksTest, ReportFollowsFromTheSamples) {
  const std::string samples = Path("samples.jsonl");
  const std::string choices = Write("choices.jsonl", kChoices);
  const Json report = Report({"eval", TwinPath(), "-t", "1", "--tasks", kBlimp + "," + choices, "--samples", samples});
  std::map<std::string, std::vector<double>> acc;
  for (const Json& sample : Lines(Slurp(samples))) {
    size_t best = 0;
    for (size_t r = 1; r < sample["requests"].size(); ++r) {
      if (sample["requests"][r]["log_likelihood_nats"] > sample["requests"][best]["log_likelihood_nats"]) {
        best = r;
      }
    }
    EXPECT_EQ(sample["acc"], best == sample["gold"] ? 1 : 0) << sample;
    acc[sample["task"]].push_back(sample["acc"]);
  }
  ASSERT_EQ(report["tasks"].size(), acc.size());
  std::vector<double> of_blimp;
  for (const Json& task : report["tasks"]) {
    const auto& hits = acc[task["task"]];
    const auto n = static_cast<double>(hits.size());
    const double mean = std::accumulate(hits.begin(), hits.end(), 0.0) / n;
    EXPECT_EQ(task["items"], hits.size());
    EXPECT_NEAR(task["acc"], mean, 1e-12);
    EXPECT_NEAR(task["acc_error"], n > 1 ? std::sqrt(mean * (1 - mean) / (n - 1)) : 0, 1e-12);
    EXPECT_EQ(task["acc_norm"].is_null(), task["task"] != "choice");
    if (task["set"] == "blimp-excerpt") {
      of_blimp.push_back(mean);
    }
  }
  ASSERT_EQ(of_blimp.size(), 4u);
  EXPECT_EQ(report["groups"].size(), 4u);
  ASSERT_EQ(report["sets"].size(), 2u);
  EXPECT_NEAR(report["sets"][0]["acc"], std::accumulate(of_blimp.begin(), of_blimp.end(), 0.0) / 4, 1e-12);
  EXPECT_EQ(report["average"]["tasks"], 2);
  EXPECT_EQ(report["items"], 20);
  EXPECT_EQ(report["requests"], 32 + 8 + 2);
  EXPECT_EQ(report["truncated_requests"], 0);
}

TEST_F(CliTasksTest, APlanChangesTheLikelihoodsAndIsReported) {
  const std::vector<std::string> eval = {"eval", TwinPath(), "-t", "1", "--tasks", kBlimp, "--limit", "2", "--samples"};
  const Json dense = Report(eval + std::vector{Path("dense.jsonl")});
  const Json pruned = Report(eval + std::vector{Path("pruned.jsonl"), std::string("--drop"), std::string("a1,f2")});
  EXPECT_EQ(dense["items"], 8);
  EXPECT_EQ(dense["plan"], "dense");
  EXPECT_EQ(pruned["plan"], "a1=0 f2=0");
  EXPECT_LT(pruned["managed_bytes"], dense["managed_bytes"]);
  EXPECT_NE(Slurp(Path("dense.jsonl")), Slurp(Path("pruned.jsonl")));
  const Json budgeted = Report({"eval", TwinPath(), "-t", "1", "--tasks", kBlimp, "--memory-budget", "70%"});
  EXPECT_EQ(budgeted["policy"], "data-free");
  EXPECT_NE(budgeted["plan"], "dense");
  EXPECT_LE(budgeted["managed_bytes"], budgeted["budget_bytes"]);
}

TEST_F(CliTasksTest, LongContextsAreCutAtTheirBeginningAndCounted) {
  std::string context = "Once upon a time";
  for (int i = 0; i < 100; ++i) {
    context += " there was a house";
  }
  const Json line = {{"context", context}, {"choices", {"in the wood", "hat"}}, {"gold", 0}};
  const std::string tasks = Write("long.jsonl", line.dump() + "\n");
  EXPECT_EQ(Report({"eval", TwinPath(), "-t", "1", "--tasks", tasks})["truncated_requests"], 0);
  const std::string samples = Path("samples.jsonl");
  const Json cut = Report({"eval", TwinPath(), "-t", "1", "--tasks", tasks, "-c", "64", "--samples", samples});
  EXPECT_EQ(cut["truncated_requests"], 2);
  EXPECT_EQ(cut["context_tokens"], 64);
  Oracle oracle(TwinPath());
  const Json sample = Lines(Slurp(samples)).at(0);
  for (const Json& request : sample["requests"]) {
    const auto tokens = request["tokens"].get<std::vector<int32_t>>();
    EXPECT_EQ(tokens.size(), 65u);
    EXPECT_NEAR(request["log_likelihood_nats"], oracle.LogLikelihood(tokens, request["context_tokens"]),
                kBetweenShapes);
  }
}

TEST_F(CliTasksTest, PrintsATable) {
  const Outcome outcome = Espalier({"eval", TwinPath(), "-t", "1", "--tasks", kBlimp, "--limit", "1"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  for (const char* part : {"blimp-excerpt: principle_A_case_1", "mean of blimp-excerpt: binding", "4 tasks", " +/- "}) {
    EXPECT_NE(outcome.out.find(part), std::string::npos) << part << " in:\n" << outcome.out;
  }
}

TEST_F(CliTasksTest, RefusesWhatCannotBeScored) {
  const std::vector<std::string> eval = {"eval", TwinPath(), "-t", "1", "--tasks"};
  ExpectRefusal({"eval", TwinPath()}, 2, {"--text or --tasks"});
  ExpectRefusal({"eval", TwinPath(), "--text", kBlimp, "--limit", "3"}, 2, {"--tasks"});
  ExpectRefusal(eval + std::vector<std::string>{kBlimp, "--text", kBlimp}, 2, {"--text"});
  ExpectRefusal(eval + std::vector<std::string>{Path("missing.jsonl")}, 1, {"missing.jsonl"});
  ExpectRefusal(eval + std::vector<std::string>{Write("empty.jsonl", "")}, 1, {"empty.jsonl", "no items"});
  ExpectRefusal(
      eval + std::vector<std::string>{Write("bad.jsonl", "{\"good\": \"a\", \"bad\": \"b\"}\n{\"good\": \"a\"")}, 1,
      {"bad.jsonl", "line 2"});
  ExpectRefusal(eval + std::vector<std::string>{kBlimp + "," + kBlimp}, 1, {"blimp-excerpt", "already"});
  ExpectRefusal(eval + std::vector<std::string>{kBlimp, "-c", "4096"}, 1, {"4096", "512"});
  ExpectRefusal(eval + std::vector<std::string>{kBlimp, "-c", "2"}, 1, {"anaphor_number_agreement", "item 1", "2"});
  ExpectRefusal(eval + std::vector<std::string>{kBlimp, "--samples", Path("no/such/folder")}, 1, {"no/such/folder"});
  ExpectRefusal(eval + std::vector<std::string>{kBlimp, "--memory-budget", "1MiB"}, 1, {"1"});
}

}  // namespace
}  // namespace espalier::test
