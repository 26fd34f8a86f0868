// Sampling on a real model: the same flags and seed give the text that stock llama-completion gives.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "support/models.h"
#include "support/peer.h"
#include "text/libllama_reference.h"
#include "text/sampler.h"
#include "text/tokenizer.h"

namespace espalier::test {
namespace {

constexpr const char* kPrompt = "It was a bright cold day";
constexpr int kTokens = 48;

// The prompt and what follows, with libllama's logits, so that sampling alone is compared.
std::string Complete(const SamplerOptions& options) {
  const auto model = OpenOrFail(TwinPath());
  const auto tokenizer = Tokenizer::Open(*model);
  LibllamaOptions libllama;
  libllama.n_ctx = 512;
  libllama.n_threads = 1;
  const auto reference = LibllamaReference::Open(TwinPath(), libllama);
  const auto sampler = Sampler::Create(**tokenizer, options);
  EXPECT_TRUE(sampler.ok()) << sampler.status().message();
  const auto prompt = (*tokenizer)->Encode(kPrompt, true, true);
  (*sampler)->AcceptPrompt(*prompt);
  std::vector<int32_t> next = *prompt;
  std::string text = kPrompt;
  for (int i = 0; i < kTokens; ++i) {
    const auto logits = (*reference)->Decode(next, /*all_logits=*/false);
    EXPECT_TRUE(logits.ok()) << logits.status().message();
    const int32_t token = (*sampler)->Sample(*logits);
    EXPECT_TRUE((*sampler)->Accept(token).ok());
    if ((*tokenizer)->is_end_of_generation(token)) {
      break;
    }
    text += (*tokenizer)->Piece(token, false);
    next = {token};
  }
  return text;
}

struct Case {
  const char* name;
  const char* flags;
  SamplerOptions options;
};

void PrintTo(const Case& one, std::ostream* out) { *out << one.name; }

std::vector<Case> Cases() {
  std::vector<Case> cases;
  const auto add = [&cases](const char* name, const char* flags) -> SamplerOptions& {
    cases.push_back({name, flags, {}});
    cases.back().options.seed = 7;
    return cases.back().options;
  };
  add("Defaults", "");
  add("Greedy", "--temp 0").temperature = 0;
  SamplerOptions& truncated = add("Truncated", "--temp 1.3 --top-k 200 --top-p 0.8 --min-p 0.01 --typical 0.9");
  truncated.temperature = 1.3f;
  truncated.top_k = 200;
  truncated.top_p = 0.8f;
  truncated.min_p = 0.01f;
  truncated.typical_p = 0.9f;
  SamplerOptions& penalties =
      add("Penalties", "--repeat-penalty 1.3 --repeat-last-n 32 --presence-penalty 0.4 --frequency-penalty 0.2");
  penalties.repeat_penalty = 1.3f;
  penalties.repeat_last_n = 32;
  penalties.presence_penalty = 0.4f;
  penalties.frequency_penalty = 0.2f;
  SamplerOptions& dry =
      add("DryXtcSigma", "--dry-multiplier 0.8 --xtc-probability 0.5 --top-nsigma 2 --dynatemp-range 0.3");
  dry.dry_multiplier = 0.8f;
  dry.xtc_probability = 0.5f;
  dry.top_n_sigma = 2;
  dry.dynatemp_range = 0.3f;
  add("Mirostat1", "--mirostat 1").mirostat = 1;
  SamplerOptions& mirostat = add("Mirostat2", "--mirostat 2 --mirostat-ent 4 --mirostat-lr 0.2");
  mirostat.mirostat = 2;
  mirostat.mirostat_tau = 4;
  mirostat.mirostat_eta = 0.2f;
  add("Grammar", "--grammar 'root ::= [a-z ]+'").grammar = "root ::= [a-z ]+";
  add("IgnoreEosBias", "--ignore-eos --logit-bias 8107-5").logit_bias = {{8107, -5.0f}};
  cases.back().options.ignore_eos = true;
  return cases;
}

std::string WithoutNewlinesAtTheEnd(std::string text) {
  text.erase(text.find_last_not_of('\n') + 1);
  return text;
}

// Prompt and continuation as llama-completion prints them; empty without stock tools.
std::optional<std::string> StockCompletion(const std::string& flags) {
  auto output =
      RunPeer("llama-completion",
              "-m '" + TwinPath() + "' -p '" + kPrompt + "' -n " + std::to_string(kTokens) +
                  " -c 512 -t 1 --seed 7 -no-cnv --no-warmup --simple-io " + flags + " 2>/dev/null < /dev/null",
              kPrompt);
  if (output) {
    output->resize(std::min(output->size(), output->find(" [end of text]")));
    output->erase(0, output->find(kPrompt));  // SentencePiece's space before the text
    *output = WithoutNewlinesAtTheEnd(*output);
  }
  return output;
}

class SamplingOfModels : public testing::TestWithParam<Case> {};

TEST_P(SamplingOfModels, GivesTheTextOfStockLlamaCompletion) {
  auto expected = StockCompletion(GetParam().flags);
  if (!expected) {
    GTEST_SKIP() << kNoPeer;
  }
  const std::string text = WithoutNewlinesAtTheEnd(Complete(GetParam().options));
  // The tool loses the end of what it prints now and then.
  for (int attempt = 0; attempt < 5 && *expected != text && text.starts_with(*expected); ++attempt) {
    expected = StockCompletion(GetParam().flags);
  }
  EXPECT_EQ(text, *expected);
  EXPECT_GT(text.size(), std::string(kPrompt).size() + 10);
}

INSTANTIATE_TEST_SUITE_P(Twin, SamplingOfModels, testing::ValuesIn(Cases()),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace espalier::test
