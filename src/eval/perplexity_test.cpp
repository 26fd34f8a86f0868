#include "eval/perplexity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "eval/fake_engine_for_test.h"

namespace espalier {
namespace {

using test::FakeEngine;
using test::PlainNll;
using test::SomeWindows;
using ::testing::HasSubstr;

// Every scored token, in the plain order, under the dense plan of the fake engine.
Moments ExpectedNll(const Windows& windows) {
  Moments nll;
  for (int64_t w = 0; w < windows.count(); ++w) {
    const auto tokens = windows.at(w);
    for (auto target = static_cast<size_t>(windows.first_target); target < tokens.size(); ++target) {
      nll.Add(PlainNll(FakeEngine::Row(tokens[target - 1], 0, 0), tokens[target]));
    }
  }
  return nll;
}

TEST(Perplexity, ScoresExactlyTheTokensOfTheProtocol) {
  for (const Protocol protocol : {Protocol::kGptq, Protocol::kLlama}) {
    FakeEngine engine;
    const Windows windows = SomeWindows(protocol, 16, 7);
    const auto result = MeasurePerplexity(&engine, windows);
    ASSERT_TRUE(result.ok()) << result.status().message();
    const Moments expected = ExpectedNll(windows);
    EXPECT_EQ(result->subject.tokens_scored, expected.count());
    EXPECT_EQ(result->subject.tokens_scored, 7 * windows.targets_per_window());
    EXPECT_NEAR(result->mean_nll.value, expected.mean(), 1e-6);
    EXPECT_NEAR(result->mean_nll.error, expected.mean_error(), 1e-6);
    EXPECT_NEAR(result->perplexity.value, std::exp(expected.mean()), 1e-5);
    EXPECT_FALSE(engine.has_sequences());
  }
}

TEST(Perplexity, WindowMeansAreOfTheirWindows) {
  FakeEngine engine;
  const Windows windows = SomeWindows(Protocol::kLlama, 16, 3);
  const auto result = MeasurePerplexity(&engine, windows);
  ASSERT_TRUE(result.ok());
  ASSERT_EQ(result->window_nll.size(), 3u);
  for (int64_t w = 0; w < 3; ++w) {
    Windows one = windows;
    const auto tokens = windows.at(w);
    one.tokens.assign(tokens.begin(), tokens.end());
    EXPECT_NEAR(result->window_nll[static_cast<size_t>(w)], ExpectedNll(one).mean(), 1e-6);
  }
}

TEST(Perplexity, NamesItsSubject) {
  FakeEngine engine;
  ASSERT_TRUE(engine.Apply(*Plan::ParseDrop("f0", 1)).ok());
  const auto result = MeasurePerplexity(&engine, SomeWindows(Protocol::kGptq, 16, 2));
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->subject.plan, "f0=0");
  EXPECT_EQ(result->subject.corpus, "numbers");
  EXPECT_EQ(result->subject.model, "tiny");
  EXPECT_EQ(result->subject.windows, 2);
  EXPECT_EQ(result->subject.window_tokens, 16);
  EXPECT_EQ(result->managed_bytes, 200u + 16u);
}

TEST(Perplexity, TellsProgress) {
  FakeEngine engine;
  std::vector<int64_t> done;
  double last = 0;
  const auto result =
      MeasurePerplexity(&engine, SomeWindows(Protocol::kGptq, 16, 3), [&](int64_t n, int64_t of, double perplexity) {
        done.push_back(n);
        EXPECT_EQ(of, 3);
        last = perplexity;
      });
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(done, (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(last, result->perplexity.value);
}

TEST(Perplexity, RefusesAnEngineWithTooFewCells) {
  FakeEngine engine(31);
  const auto result = MeasurePerplexity(&engine, SomeWindows(Protocol::kGptq, 32, 2));
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), ErrorCode::kOutOfBudget);
}

TEST(Perplexity, SaysWhereLogitsAreNotNumbers) {
  FakeEngine engine;
  Windows windows = SomeWindows(Protocol::kGptq, 8, 2);
  std::fill(windows.tokens.begin(), windows.tokens.end(), 0);
  windows.tokens[8 + 5] = 3;
  engine.AnswerNanAfter(3);
  const auto result = MeasurePerplexity(&engine, windows);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), ErrorCode::kCorrupt);
  EXPECT_THAT(result.status().message(), HasSubstr("token 5 of window 1"));
  EXPECT_FALSE(engine.has_sequences());
}

}  // namespace
}  // namespace espalier
