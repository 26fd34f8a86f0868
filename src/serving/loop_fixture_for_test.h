// A loop on fakes, with a limit and a clock to turn by hand.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "serving/engine_loop.h"
#include "serving/fakes_for_test.h"
#include "serving/kv_tenancy.h"
#include "serving/memory_keeper.h"
#include "serving/waiting_queue.h"

namespace espalier {

class RecordingListener final : public RequestListener {
 public:
  void OnPromptScores(std::vector<TokenScores> of_prompt) override {
    EXPECT_TRUE(ends.empty() && tokens.empty());
    prompt_scores.push_back(std::move(of_prompt));
  }
  void OnPrefill(int64_t done, int64_t total) override {
    EXPECT_TRUE(ends.empty() && tokens.empty());
    prefills.emplace_back(done, total);
  }
  void OnToken(const TokenScores& token) override {
    EXPECT_TRUE(ends.empty()) << "nothing may follow OnEnd";
    tokens.push_back(token.chosen.token);
    scores.push_back(token);
    if (on_token) {
      on_token();
    }
  }
  void OnEnd(const RequestEnd& end) override {
    ends.push_back(end);
    if (on_end) {
      on_end();
    }
  }

  bool ended() const { return !ends.empty(); }

  std::vector<int32_t> tokens;
  std::vector<TokenScores> scores;
  std::vector<std::vector<TokenScores>> prompt_scores;  // of every call
  std::vector<std::pair<int64_t, int64_t>> prefills;
  std::vector<RequestEnd> ends;  // of every call
  std::function<void()> on_token;
  std::function<void()> on_end;
};

struct Sent {
  RequestId id = 0;
  std::vector<int32_t> prompt;
  int64_t max_tokens = 0;
  std::shared_ptr<RecordingListener> listener;
};

inline std::vector<int32_t> RandomPrompt(std::mt19937& random, int64_t length) {
  std::vector<int32_t> prompt;
  for (int64_t i = 0; i < length; ++i) {
    prompt.push_back(static_cast<int32_t>(random() % (kFakeVocabulary - 1)));
  }
  return prompt;
}

class LoopFixture : public testing::Test {
 protected:
  static constexpr int kLayers = 6;
  static constexpr int64_t kCapacity = 400;
  static constexpr uint64_t kProcess = 10'000;
  static constexpr uint64_t kWeights =
      ManySequencesEngine::kGlobalBytes +
      kLayers * (ManySequencesEngine::kAttentionBytes + ManySequencesEngine::kFfnBytes);
  static constexpr uint64_t kRowBytes = kLayers * ManySequencesEngine::kCellBytes;  // of one cell, all blocks kept
  static constexpr uint64_t kEverything = kProcess + kWeights + kCapacity * kRowBytes;

  EngineLoop::Parts Parts() {
    EngineLoop::Parts parts;
    parts.engine = &engine_;
    parts.tokenizer = &tokenizer_;
    parts.policy = &data_free_;
    parts.process_bytes = kProcess;
    parts.limit = [this](uint64_t) { return limit_; };
    parts.clock = &clock_;
    return parts;
  }
  void Start(const LoopOptions& options = {}, const Policy* policy = nullptr, LoopObserver* observer = nullptr) {
    EngineLoop::Parts parts = Parts();
    parts.policy = policy != nullptr ? policy : parts.policy;
    parts.observer = observer;
    loop_.reset();  // gives back what it holds of the engine
    loop_ = EngineLoop::Create(parts, options);
  }

  // Of a request with these tokens: whatever it wants besides is in `extra`.
  Result<Sent> TrySend(std::vector<int32_t> prompt, int64_t max_tokens, LoopRequest extra = {}) {
    Sent sent = {0, prompt, max_tokens, std::make_shared<RecordingListener>()};
    extra.prompt = std::move(prompt);
    extra.max_tokens = max_tokens;
    if (extra.make_sampler == nullptr && max_tokens > 0) {
      extra.make_sampler = MakeHistorySampler;
    }
    extra.listener = sent.listener;
    ESPALIER_ASSIGN_OR_RETURN(sent.id, loop_->Submit(std::move(extra)));
    return sent;
  }
  Sent Send(std::vector<int32_t> prompt, int64_t max_tokens, LoopRequest extra = {}) {
    Result<Sent> sent = TrySend(std::move(prompt), max_tokens, std::move(extra));
    EXPECT_TRUE(sent.ok()) << sent.status().message();
    return sent.ok() ? *sent : Sent{0, {}, 0, std::make_shared<RecordingListener>()};
  }
  // A request whose answer does not end before max_tokens.
  Sent SendLong(int64_t prompt_tokens, int64_t max_tokens) {
    while (true) {
      std::vector<int32_t> prompt = RandomPrompt(random_, prompt_tokens);
      if (AnswerAlone(prompt, max_tokens).reason == FinishReason::kLength) {
        return Send(std::move(prompt), max_tokens);
      }
    }
  }

  void SetLimit(uint64_t bytes) {
    limit_.bytes = bytes;
    loop_->Wake();
  }
  // One step, which takes `ms`. True if something was computed.
  bool Step(double ms = 60) {
    clock_.Advance(ms);
    const Result<bool> worked = loop_->Step();
    EXPECT_TRUE(worked.ok());
    EXPECT_EQ(engine_.overfull_decodes, 0);
    EXPECT_EQ(engine_.foreign_takeovers, 0) << "KV of another plan was taken over";
    return worked.ok() && *worked;
  }
  void Steps(int n, double ms = 60) {
    for (int i = 0; i < n; ++i) {
      Step(ms);
    }
  }
  void StepUntilEnded(const Sent& sent, int most = 2000) {
    for (int i = 0; i < most && !sent.listener->ended(); ++i) {
      Step();
    }
    ASSERT_TRUE(sent.listener->ended()) << "request " << sent.id << " was lost";
  }
  void ExpectLoneAnswer(const Sent& sent) {
    const LoneAnswer expected = AnswerAlone(sent.prompt, sent.max_tokens);
    ASSERT_EQ(sent.listener->ends.size(), 1u) << "request " << sent.id;
    const RequestEnd& end = sent.listener->ends.front();
    EXPECT_EQ(end.reason, expected.reason) << end.status.ok();
    EXPECT_EQ(sent.listener->tokens, expected.tokens) << "request " << sent.id;
    EXPECT_EQ(end.generated_tokens, static_cast<int64_t>(expected.tokens.size()));
  }
  uint64_t used() const { return engine_.memory_in_use().total() + kProcess; }
  int CountEvents(ServingEvent::Kind kind, uint64_t after = 0) const {
    const auto events = loop_->events().Since(after);
    return static_cast<int>(
        std::count_if(events.begin(), events.end(), [&](const ServingEvent& event) { return event.kind == kind; }));
  }
  LoopSnapshot FreshSnapshot() {
    Step();
    return loop_->snapshot();
  }

  std::mt19937 random_{11};
  ManySequencesEngine engine_{kLayers, kCapacity};
  FakeTokenizer tokenizer_;
  DataFreePolicy data_free_;
  VirtualClock clock_;
  LimitReading limit_ = {.bytes = 10 * kEverything, .source = "operator", .deliberate = true};
  std::unique_ptr<EngineLoop> loop_;  // last: it uses the others until its end
};

// What a loop is made of, without one: for tests of its other parts.
class LoopPartsFixture : public LoopFixture {
 protected:
  EventLog events_;
  WaitingQueue waiting_;
  KvTenancy tenancy_{&engine_, &waiting_};
  MemoryKeeper keeper_{{.engine = &engine_,
                        .policy = &data_free_,
                        .process_bytes = kProcess,
                        .limit = {},
                        .events = &events_,
                        .observer = nullptr,
                        .tenants = &tenancy_},
                       LoopOptions(),
                       clock_.Now()};
};

}  // namespace espalier
