// Whatever happens around a request, its answer is the one that an engine with nothing else to do gives.
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "serving/loop_fixture_for_test.h"

namespace espalier {
namespace {

class EngineLoopProperty : public LoopFixture, public testing::WithParamInterface<uint32_t> {
 protected:
  int64_t Below(uint32_t n) { return static_cast<int64_t>(random_() % n); }
  bool OneIn(uint32_t n) { return random_() % n == 0; }

  // Often begins like an earlier one.
  std::vector<int32_t> SomePrompt() {
    std::vector<int32_t> prompt;
    if (!sent_.empty() && OneIn(2)) {
      const Sent& earlier = sent_[random_() % sent_.size()];
      prompt = earlier.prompt;
      if (OneIn(2)) {
        prompt.insert(prompt.end(), earlier.listener->tokens.begin(), earlier.listener->tokens.end());
      }
      prompt.resize(std::min<size_t>(prompt.size(), 1 + random_() % 90));
    }
    const std::vector<int32_t> more = RandomPrompt(random_, 1 + Below(OneIn(3) ? 120 : 20));
    prompt.insert(prompt.end(), more.begin(), more.end());
    return prompt;
  }

  void SendSome() {
    LoopRequest extra;
    extra.prompt_scores = OneIn(5);
    extra.n_top = OneIn(3) ? 2 : -1;
    extra.cache_prompt = !OneIn(4);
    const bool scored = extra.prompt_scores;
    Result<Sent> sent = TrySend(SomePrompt(), Below(60), std::move(extra));
    if (sent.ok()) {
      sent_.push_back(*sent);
      scored_.push_back(scored);
    } else {
      EXPECT_NE(sent.status().code(), ErrorCode::kInvalidArgument);
    }
  }

  // The limit holds once it was seen, unless not even the smallest plan meets it.
  void StepAndCheck(double ms) {
    Step(ms);
    EXPECT_LE(used(), std::max(limit_seen_, kProcess + ManySequencesEngine::kGlobalBytes));
  }

  void MoveLimit() {
    limit_.bytes = OneIn(4) ? 10 * kEverything
                            : kProcess + ManySequencesEngine::kGlobalBytes - 200 + random_() % (kWeights + 9000);
    limit_.deliberate = !OneIn(3);
    limit_.pressure = OneIn(6);
    if (!OneIn(4)) {
      loop_->Wake();
    }
  }

  void ExpectAnswer(size_t i) {
    const Sent& sent = sent_[i];
    ASSERT_EQ(sent.listener->ends.size(), 1u) << "request " << sent.id;
    const FinishReason reason = sent.listener->ends[0].reason;
    const LoneAnswer alone = AnswerAlone(sent.prompt, sent.max_tokens);
    if (reason == FinishReason::kCancelled || reason == FinishReason::kFailed) {
      const auto [ours, theirs] = std::mismatch(sent.listener->tokens.begin(), sent.listener->tokens.end(),
                                                alone.tokens.begin(), alone.tokens.end());
      EXPECT_EQ(ours, sent.listener->tokens.end()) << "request " << sent.id;
      return;
    }
    ExpectLoneAnswer(sent);
    EXPECT_EQ(sent.listener->prompt_scores.size(), scored_[i] ? 1u : 0u);
    if (scored_[i]) {
      EXPECT_EQ(sent.listener->prompt_scores[0].size(), sent.prompt.size() - 1);
    }
  }

  uint64_t limit_seen_ = UINT64_MAX;
  std::vector<Sent> sent_;
  std::vector<bool> scored_;
};

TEST_P(EngineLoopProperty, AnswersAreThoseOfALoneEngine) {
  random_.seed(GetParam());
  const FloorPolicy floor(static_cast<int>(random_() % 11));
  LoopOptions options;
  options.max_running = 1 + static_cast<int>(Below(16));
  options.batch_tokens = options.max_running + static_cast<int>(Below(OneIn(2) ? 20 : 500));
  options.cache_prompts = !OneIn(4);
  options.grow_after_ms = static_cast<double>(Below(3000));
  options.hold_ms = static_cast<double>(Below(5000));
  options.reprefill_ratio = static_cast<double>(Below(10));
  EngineLoop::Parts parts = Parts();
  parts.policy = &floor;
  parts.limit = [this](uint64_t) {
    limit_seen_ = limit_.bytes;
    return limit_;
  };
  loop_ = EngineLoop::Create(parts, options);
  engine_.on_decode = [&](std::span<const BatchToken> batch) {
    EXPECT_LE(batch.size(), static_cast<size_t>(options.batch_tokens));
    EXPECT_GE(FloorPolicy::Kept(engine_.plan()), floor.floor());
    EXPECT_LE(used(), limit_seen_);
  };
  engine_.on_load = [&] { EXPECT_LE(used(), limit_seen_); };
  const int arrivals = 2 + static_cast<int>(Below(12));
  for (int step = 0; step < 400; ++step) {
    while (OneIn(static_cast<uint32_t>(arrivals))) {
      SendSome();
    }
    if (OneIn(25)) {
      MoveLimit();
    }
    if (!sent_.empty() && OneIn(30)) {
      loop_->Cancel(sent_[random_() % sent_.size()].id);
    }
    engine_.failing_decodes = OneIn(150) ? 1 : 0;
    engine_.failing_loads = OneIn(60) ? 1 : 0;
    StepAndCheck(static_cast<double>(Below(200)));
  }
  limit_ = {.bytes = 10 * kEverything, .source = "operator", .deliberate = true};
  engine_.failing_loads = engine_.failing_decodes = 0;
  for (int i = 0; i < 50000 && loop_->snapshot().running + loop_->snapshot().waiting > 0; ++i) {
    StepAndCheck(100);
  }
  Steps(100);
  for (size_t i = 0; i < sent_.size(); ++i) {
    ExpectAnswer(i);
  }
  const LoopSnapshot snapshot = loop_->snapshot();
  EXPECT_EQ(snapshot.completed + snapshot.cancelled + snapshot.failed, static_cast<int64_t>(sent_.size()));
  EXPECT_EQ(snapshot.used_cells, snapshot.cached_cells) << "nothing else holds KV once all have ended";
  EXPECT_TRUE(engine_.plan().dense());
  EXPECT_LE(engine_.most_used_cells, kCapacity);
  EXPECT_LE(engine_.most_sequences, engine_.options().max_sequences);
}

INSTANTIATE_TEST_SUITE_P(Seeds, EngineLoopProperty, testing::Range(1u, 101u));

}  // namespace
}  // namespace espalier
