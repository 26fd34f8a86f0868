#include "text/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <malloc.h>

#include <algorithm>
#include <limits>
#include <set>

#include "support/twin_tokenizer.h"

namespace espalier {
namespace {

using ::testing::HasSubstr;

class SamplerTest : public test::TwinTokenizerTest {
 protected:
  void SetUp() override { logits_.assign(static_cast<size_t>(tokenizer_->n_vocab()), 0.0f); }

  std::unique_ptr<Sampler> Create(const SamplerOptions& options) {
    auto sampler = Sampler::Create(*tokenizer_, options);
    EXPECT_TRUE(sampler.ok()) << sampler.status().message();
    return sampler.ok() ? std::move(*sampler) : nullptr;
  }

  std::vector<int32_t> Draw(Sampler& sampler, int count) {
    std::vector<int32_t> tokens;
    for (int i = 0; i < count; ++i) {
      tokens.push_back(sampler.Sample(logits_));
      EXPECT_TRUE(sampler.Accept(tokens.back()).ok());
    }
    return tokens;
  }

  static SamplerOptions Greedy() {
    SamplerOptions options;
    options.temperature = 0;
    return options;
  }

  std::vector<float> logits_;
};

TEST_F(SamplerTest, IsGreedyAtTemperatureZero) {
  logits_[700] = 3;
  logits_[701] = 2.9f;
  for (const float temperature : {0.0f, -1.0f}) {
    SamplerOptions options;
    options.temperature = temperature;
    EXPECT_EQ(Draw(*Create(options), 20), std::vector<int32_t>(20, 700));
  }
}

TEST_F(SamplerTest, RepeatsItselfForASeed) {
  for (int i = 0; i < 40; ++i) {
    logits_[static_cast<size_t>(100 + i)] = 5.0f + 0.01f * static_cast<float>(i);
  }
  SamplerOptions options;
  options.seed = 42;
  const auto first = Draw(*Create(options), 50);
  EXPECT_EQ(Draw(*Create(options), 50), first);
  EXPECT_EQ(Create(options)->seed(), 42u);
  options.seed = 43;
  EXPECT_NE(Draw(*Create(options), 50), first);
}

TEST_F(SamplerTest, DrawsASeedOfItsOwnWhenNoneIsGiven) {
  std::set<uint32_t> seeds;
  for (int i = 0; i < 4; ++i) {
    seeds.insert(Create({})->seed());
  }
  EXPECT_GT(seeds.size(), 1u);
}

TEST_F(SamplerTest, TopKBoundsTheChoice) {
  for (int i = 0; i < 8; ++i) {
    logits_[static_cast<size_t>(i) * 3 + 50] = 10.0f - 0.01f * static_cast<float>(i);
  }
  SamplerOptions options;
  options.seed = 1;
  options.top_k = 3;
  options.top_p = 1;
  options.min_p = 0;
  const auto tokens = Draw(*Create(options), 200);
  EXPECT_EQ(std::set<int32_t>(tokens.begin(), tokens.end()), (std::set<int32_t>{50, 53, 56}));
}

TEST_F(SamplerTest, PenaltiesSeePromptAndGeneratedTokens) {
  logits_[10] = 5;
  logits_[11] = 4;
  logits_[12] = 3;
  SamplerOptions options = Greedy();
  options.presence_penalty = 2.5f;
  auto sampler = Create(options);
  EXPECT_EQ(sampler->Sample(logits_), 10);
  sampler->AcceptPrompt(std::vector<int32_t>{10});
  EXPECT_EQ(sampler->Sample(logits_), 11);
  ASSERT_TRUE(sampler->Accept(11).ok());
  EXPECT_EQ(sampler->Sample(logits_), 12);
}

TEST_F(SamplerTest, LogitBiasBansAndPromotes) {
  logits_[10] = 5;
  SamplerOptions options = Greedy();
  options.logit_bias = {{10, -std::numeric_limits<float>::infinity()}, {99, 1.0f}};
  EXPECT_EQ(Create(options)->Sample(logits_), 99);
}

TEST_F(SamplerTest, IgnoreEosBansTheEnd) {
  logits_[static_cast<size_t>(tokenizer_->eos())] = 5;
  logits_[321] = 1;
  SamplerOptions options = Greedy();
  EXPECT_EQ(Create(options)->Sample(logits_), tokenizer_->eos());
  options.ignore_eos = true;
  EXPECT_EQ(Create(options)->Sample(logits_), 321);
}

TEST_F(SamplerTest, MirostatDraws) {
  logits_[10] = 30;
  for (const int version : {1, 2}) {
    SamplerOptions options;
    options.seed = 5;
    options.mirostat = version;
    EXPECT_EQ(Draw(*Create(options), 5), std::vector<int32_t>(5, 10));
  }
}

TEST_F(SamplerTest, GrammarAllowsNothingElse) {
  SamplerOptions options;
  options.seed = 3;
  options.grammar = "root ::= \"yes\" | \"no\"";
  std::set<std::string> answers;
  for (uint32_t seed = 0; seed < 16; ++seed) {
    options.seed = seed;
    auto sampler = Create(options);
    std::string answer;
    for (int i = 0; i < 8; ++i) {
      const int32_t token = sampler->Sample(logits_);
      ASSERT_TRUE(sampler->Accept(token).ok());
      if (tokenizer_->is_end_of_generation(token)) {
        break;
      }
      answer += tokenizer_->Piece(token, false);
    }
    answers.insert(answer);
  }
  EXPECT_EQ(answers, (std::set<std::string>{"no", "yes"}));
}

TEST_F(SamplerTest, GrammarRefusesAForeignToken) {
  SamplerOptions options;
  options.grammar = "root ::= \"yes\"";
  const Status status = Create(options)->Accept(tokenizer_->Encode("night", false, false)->front());
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(status.message(), HasSubstr("grammar"));
}

TEST_F(SamplerTest, IsSmallWhateverTheVocabulary) {
  constexpr size_t kSamplers = 64;
  std::vector<std::unique_ptr<Sampler>> samplers;
  samplers.reserve(kSamplers);
  SamplerOptions options = Greedy();
  options.repeat_last_n = 1 << 20;
  FitToContext(512, &options);
  const size_t before = mallinfo2().uordblks;
  for (size_t i = 0; i < kSamplers; ++i) {
    samplers.push_back(Create(options));
    samplers.back()->Sample(logits_);
  }
  // The scratch for candidates is 12 bytes for each token, once. (Sanitizers count nothing here.)
  const size_t scratch = 12 * logits_.size();
  EXPECT_LT(mallinfo2().uordblks - before, 2 * scratch + kSamplers * 32 * 1024);
}

TEST_F(SamplerTest, PenaltiesLookNoFurtherThanTheContext) {
  SamplerOptions options;
  options.repeat_last_n = -1;
  options.dry_penalty_last_n = 1000;
  FitToContext(512, &options);
  EXPECT_EQ(options.repeat_last_n, 512);
  EXPECT_EQ(options.dry_penalty_last_n, 512);
  options.repeat_last_n = 0;
  FitToContext(512, &options);
  EXPECT_EQ(options.repeat_last_n, 0);
}

TEST_F(SamplerTest, MinKeepLeavesMoreThanTheCutsWould) {
  logits_[10] = 8;
  logits_[11] = 7.9f;
  SamplerOptions options;
  options.seed = 1;
  options.top_p = 0;
  options.min_p = 0;
  const auto tokens_with = [&](int32_t min_keep) {
    options.min_keep = min_keep;
    const auto tokens = Draw(*Create(options), 100);
    return std::set<int32_t>(tokens.begin(), tokens.end());
  };
  EXPECT_EQ(tokens_with(0), (std::set<int32_t>{10}));
  EXPECT_EQ(tokens_with(2), (std::set<int32_t>{10, 11}));
}

TEST_F(SamplerTest, AGrammarWithTooManyWaysToReadTheTextRefusesTheToken) {
  SamplerOptions options;
  options.grammar = "root ::= [a-z]++++++++++++++++++++";
  const auto sampler = Create(options);
  Status status;
  for (int i = 0; i < 100 && status.ok(); ++i) {
    status = sampler->Accept(sampler->Sample(logits_));
  }
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(status.message(), HasSubstr("too many ways to read the text so far"));
}

TEST_F(SamplerTest, AGrammarWithTooManyWaysToBeginIsRefused) {
  SamplerOptions options;
  options.grammar = "root ::= [a-z]? [a-z]? [a-z]?";
  EXPECT_TRUE(Sampler::Create(*tokenizer_, options).ok());
  options.grammar_work = 3;
  const auto sampler = Sampler::Create(*tokenizer_, options);
  ASSERT_FALSE(sampler.ok());
  EXPECT_THAT(sampler.status().message(), HasSubstr("too many ways"));
}

TEST_F(SamplerTest, NamesWhatIsWrongWithOptions) {
  const auto message = [this](const SamplerOptions& options) {
    auto sampler = Sampler::Create(*tokenizer_, options);
    return sampler.ok() ? std::string("no error") : sampler.status().message();
  };
  SamplerOptions options;
  options.repeat_penalty = 0;
  EXPECT_THAT(message(options), HasSubstr("repeat_penalty is 0"));
  options = {};
  options.temperature = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(message(options), HasSubstr("temperature is nan"));
  options = {};
  options.mirostat = 3;
  EXPECT_THAT(message(options), HasSubstr("mirostat is 3"));
  options = {};
  options.logit_bias = {{8192, 1.0f}};
  EXPECT_THAT(message(options), HasSubstr("token 8192"));
  options = {};
  options.grammar = "root ::= (";
  EXPECT_THAT(message(options), HasSubstr("grammar: byte 10: expected"));
}

}  // namespace
}  // namespace espalier
