#include "control/generation.h"

#include <gtest/gtest.h>

#include "control/fakes_for_test.h"
#include "policy/data_free.h"

namespace espalier {
namespace {

constexpr int kLayers = 4;
constexpr uint64_t kProcess = 100'000;
constexpr uint64_t kDense = FakeEngine::kGlobalBytes + kLayers * (FakeEngine::kAttentionBytes + FakeEngine::kFfnBytes);
constexpr uint64_t kPlenty = kProcess + 10 * kDense;
constexpr uint64_t kNothingKept = kProcess + FakeEngine::kGlobalBytes;

struct Recorder final : GenerationObserver {
  void OnToken(int32_t, std::string_view piece, const StepState& state) override {
    text += piece;
    used.push_back(state.managed_bytes + state.process_bytes);
    limits.push_back(state.limit_bytes);
    if (on_token) {
      on_token();
    }
  }
  void OnTransition(const TransitionEvent& event) override { events.push_back(event); }

  std::string text;
  std::vector<uint64_t> used;
  std::vector<uint64_t> limits;
  std::vector<TransitionEvent> events;
  std::function<void()> on_token;
};

class GenerationTest : public testing::Test {
 protected:
  GenerationOptions Options(int64_t max_tokens) const {
    GenerationOptions options;
    options.prompt = {1, 2, 3, 4, 5};
    options.max_tokens = max_tokens;
    return options;
  }
  GenerationStatistics Run(const GenerationOptions& options) {
    auto statistics = generation_.Run(options, recorder_);
    EXPECT_TRUE(statistics.ok()) << statistics.status().message();
    return statistics.ok() ? *statistics : GenerationStatistics();
  }

  FakeEngine engine_{kLayers, 64};
  FakeTokenizer tokenizer_;
  FakeSampler sampler_;
  DataFreePolicy policy_;
  Controller controller_{
      engine_, policy_, {.workload = Workload::Uniform(1, 64), .process_bytes = kProcess, .limit_bytes = kPlenty}};
  Generation generation_{engine_, tokenizer_, sampler_, controller_};
  Recorder recorder_;
};

TEST_F(GenerationTest, StopsAtTheTokenLimit) {
  const auto statistics = Run(Options(4));
  EXPECT_EQ(recorder_.text, "0 1 2 3 ");
  EXPECT_EQ(statistics.stop, StopReason::kMaxTokens);
  EXPECT_EQ(statistics.generated_tokens, 4);
  EXPECT_EQ(statistics.decoded_tokens, 3) << "the first token comes out of the prefill";
  EXPECT_EQ(statistics.prompt_tokens, 5);
  EXPECT_EQ(sampler_.prompt_tokens, 5u);
  EXPECT_EQ(statistics.transitions, 0);
}

TEST_F(GenerationTest, EvaluatesThePromptOnlyWhenNoTokensAreWanted) {
  const auto statistics = Run(Options(0));
  EXPECT_EQ(recorder_.text, "");
  EXPECT_EQ(engine_.decoded, std::vector<int64_t>{5});
  EXPECT_EQ(statistics.generated_tokens, 0);
}

TEST_F(GenerationTest, StopsAtTheEndOfTheText) {
  sampler_.next = [](int n) { return n == 3 ? 15 : n; };
  const auto statistics = Run(Options(40));
  EXPECT_EQ(recorder_.text, "0 1 2 ");
  EXPECT_EQ(statistics.stop, StopReason::kEndOfText);
  EXPECT_EQ(statistics.generated_tokens, 3);
}

TEST_F(GenerationTest, StopsWhenTheContextIsFull) {
  const auto statistics = Run(Options(1000));
  EXPECT_EQ(statistics.stop, StopReason::kContextFull);
  EXPECT_EQ(engine_.SequenceLength(0), 64);
  EXPECT_EQ(statistics.generated_tokens, 64 - 5 + 1) << "the last token needs no cell";
}

TEST_F(GenerationTest, PromptsAreCutIntoChunks) {
  GenerationOptions options = Options(1);
  options.prefill_chunk = 2;
  Run(options);
  EXPECT_EQ(engine_.decoded, (std::vector<int64_t>{2, 2, 1}));
}

TEST_F(GenerationTest, APromptBeyondTheContextIsRefusedWithBothNumbers) {
  GenerationOptions options = Options(1);
  options.prompt.assign(65, 1);
  const auto refused = generation_.Run(options, recorder_);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("65"), std::string::npos);
  EXPECT_NE(refused.status().message().find("64"), std::string::npos);
}

TEST_F(GenerationTest, ABudgetStepsDownAndUpBetweenTokens) {
  GenerationOptions options = Options(40);
  options.limits = {{4, kNothingKept + 3 * 128 + 8000}, {10, kPlenty}};
  const auto statistics = Run(options);
  EXPECT_EQ(statistics.violations, 0);
  EXPECT_EQ(recorder_.limits[4], options.limits[0].limit_bytes) << "in force before the fifth token";
  for (size_t i = 0; i < recorder_.used.size(); ++i) {
    EXPECT_LE(recorder_.used[i], recorder_.limits[i]) << "token " << i;
  }
  ASSERT_GE(recorder_.events.size(), 3u);
  EXPECT_EQ(recorder_.events[0].at_token, 4);
  EXPECT_GT(recorder_.events[0].moved.n_released, 0);
  EXPECT_EQ(recorder_.events[1].at_token, 10);
  EXPECT_TRUE(engine_.plan().dense()) << "everything is back at the end";
  const auto n_released = static_cast<size_t>(recorder_.events[0].moved.n_released);
  // Down, up, and one load for each block; then the sequence is computed again.
  EXPECT_EQ(recorder_.events.size(), 2 + n_released + 1);
  EXPECT_EQ(recorder_.events.back().reason, TransitionEvent::Reason::kReprefill);
}

TEST_F(GenerationTest, ReprefillsOnceWhenAllBlocksAreBackAndTokensRemain) {
  GenerationOptions options = Options(40);
  options.limits = {{2, kNothingKept}, {4, kPlenty}};
  EXPECT_EQ(Run(options).reprefills, 1);
  EXPECT_EQ(engine_.n_reprefills, 1);
}

TEST_F(GenerationTest, ServesOnWithoutReprefillWhenFewTokensRemain) {
  GenerationOptions options = Options(40);
  options.limits = {{25, kNothingKept}, {27, kPlenty}};
  options.reprefill_ratio = 1;
  EXPECT_EQ(Run(options).reprefills, 0);
  EXPECT_EQ(engine_.n_reprefills, 0);
}

TEST_F(GenerationTest, AnAbortEndsTheRunWithoutAnError) {
  recorder_.on_token = [this] {
    if (recorder_.used.size() == 3) {
      generation_.RequestAbort();
    }
  };
  const auto statistics = Run(Options(40));
  EXPECT_EQ(statistics.stop, StopReason::kAborted);
  EXPECT_EQ(statistics.generated_tokens, 3);
}

TEST_F(GenerationTest, ABudgetThatCannotBeMetEndsTheRunWithItsError) {
  GenerationOptions options = Options(40);
  options.limits = {{3, kProcess}};
  const auto refused = generation_.Run(options, recorder_);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), ErrorCode::kOutOfBudget);
  EXPECT_EQ(recorder_.text, "0 1 2 ");
}

}  // namespace
}  // namespace espalier
