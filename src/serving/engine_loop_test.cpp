#include "serving/engine_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "serving/loop_fixture_for_test.h"

namespace espalier {
namespace {

using testing::HasSubstr;

class EngineLoopTest : public LoopFixture {};

TEST_F(EngineLoopTest, OneRequestIsAnsweredAsALoneEngineWould) {
  Start();
  const Sent sent = Send(RandomPrompt(random_, 30), 50);
  StepUntilEnded(sent);
  ExpectLoneAnswer(sent);
  EXPECT_EQ(sent.listener->ends[0].prompt_tokens, 30);
  EXPECT_EQ(sent.listener->ends[0].cached_tokens, 0);
  EXPECT_EQ(sent.listener->prefills.back(), std::pair(int64_t{30}, int64_t{30}));
}

TEST_F(EngineLoopTest, ReportsWhyAnAnswerEnded) {
  Start();
  Sent ends_itself;
  do {
    ends_itself = Send(RandomPrompt(random_, 10), 200);
    StepUntilEnded(ends_itself);
    ExpectLoneAnswer(ends_itself);
  } while (AnswerAlone(ends_itself.prompt, 200).reason != FinishReason::kEndOfText);
  EXPECT_EQ(ends_itself.listener->ends[0].reason, FinishReason::kEndOfText);
  const Sent cut = SendLong(10, 5);
  StepUntilEnded(cut);
  EXPECT_EQ(cut.listener->ends[0].reason, FinishReason::kLength);
  EXPECT_EQ(cut.listener->tokens.size(), 5u);
}

TEST_F(EngineLoopTest, RequestsInFlightShareBatchesUpToTheNumberAllowed) {
  Start({.max_running = 3});
  std::vector<Sent> sent;
  for (int i = 0; i < 5; ++i) {
    sent.push_back(SendLong(5, 20));
  }
  Steps(4);
  std::set<SequenceId> together;
  for (const BatchToken& token : engine_.batches.back()) {
    together.insert(token.sequence);
  }
  EXPECT_EQ(together.size(), 3u);
  const LoopSnapshot snapshot = FreshSnapshot();
  EXPECT_EQ(snapshot.running, 3);
  EXPECT_EQ(snapshot.waiting, 2);
  EXPECT_EQ(snapshot.requests.size(), 5u);
  for (const Sent& one : sent) {
    StepUntilEnded(one);
    ExpectLoneAnswer(one);
  }
}

TEST_F(EngineLoopTest, AdmitsFirstComeFirstServed) {
  Start({.max_running = 1});
  const Sent first = SendLong(5, 5);
  const Sent second = SendLong(5, 5);
  const Sent third = SendLong(5, 5);
  StepUntilEnded(first);
  EXPECT_TRUE(second.listener->tokens.empty());
  StepUntilEnded(second);
  EXPECT_TRUE(third.listener->tokens.empty());
  StepUntilEnded(third);
}

TEST_F(EngineLoopTest, AdmissionCountsTheAnswersStillToCome) {
  Start({.max_running = 4, .cache_prompts = false});
  const Sent large = SendLong(50, kCapacity / 2);
  const Sent other = SendLong(50, kCapacity / 2);  // both prompts would fit, both answers would not
  Steps(5);
  EXPECT_FALSE(large.listener->tokens.empty());
  EXPECT_TRUE(other.listener->prefills.empty());
  StepUntilEnded(other);
  ExpectLoneAnswer(large);
  ExpectLoneAnswer(other);
  EXPECT_LE(engine_.most_used_cells, kCapacity);
}

TEST_F(EngineLoopTest, ALargeRequestIsNotOvertakenForEver) {
  Start({.max_running = 4, .cache_prompts = false});
  SendLong(10, 100);
  Steps(3);
  const Sent large = SendLong(20, kCapacity - 19);  // needs every cell
  std::vector<Sent> small;
  for (int i = 0; i < 30; ++i) {
    small.push_back(SendLong(4, 8));
    Step();
    EXPECT_TRUE(small.back().listener->tokens.empty());
  }
  StepUntilEnded(large);
  ExpectLoneAnswer(large);
}

TEST_F(EngineLoopTest, ALongPromptNeverKeepsDecodingRequestsFromTheirTokens) {
  Start({.max_running = 4, .batch_tokens = 16, .cache_prompts = false});
  const Sent a = SendLong(3, 60);
  const Sent b = SendLong(3, 60);
  Steps(2);
  const Sent late = SendLong(200, 4);
  for (int i = 0; i < 12; ++i) {
    const size_t had_a = a.listener->tokens.size();
    const size_t had_b = b.listener->tokens.size();
    const size_t stretches = late.listener->prefills.size();
    Step();
    EXPECT_EQ(a.listener->tokens.size(), had_a + 1);
    EXPECT_EQ(b.listener->tokens.size(), had_b + 1);
    EXPECT_EQ(late.listener->prefills.size(), stretches + 1) << "and the prompt goes on, too";
    EXPECT_LE(engine_.batches.back().size(), 16u);
  }
  for (const Sent& sent : {a, b, late}) {
    StepUntilEnded(sent);
    ExpectLoneAnswer(sent);
  }
}

TEST_F(EngineLoopTest, WhoWantsNoCachedPromptLeavesNone) {
  Start();
  LoopRequest uncached;
  uncached.cache_prompt = false;
  StepUntilEnded(Send(RandomPrompt(random_, 40), 3, std::move(uncached)));
  EXPECT_EQ(engine_.used_cells(), 0);
  StepUntilEnded(Send(RandomPrompt(random_, 40), 3));
  EXPECT_GE(engine_.used_cells(), 40) << "others leave theirs";
}

TEST_F(EngineLoopTest, StepsOfALongPromptTakeAboutTheTimeAskedFor) {
  Start({.prefill_ms = 64, .cache_prompts = false});
  engine_.on_decode = [this](std::span<const BatchToken> batch) {
    clock_.Advance(2.0 * static_cast<double>(batch.size()));
  };
  const Sent decoding = SendLong(20, 30);
  Step();
  const size_t before = engine_.batches.size();
  const Sent sent = SendLong(280, 2);
  StepUntilEnded(sent);
  ASSERT_GE(engine_.batches.size(), before + 8);
  for (size_t i = before + 1; i < before + 8; ++i) {
    EXPECT_EQ(engine_.batches[i].size(), 1 + 32u) << "a token for the other one, and 64 ms of the prompt";
  }
}

TEST_F(EngineLoopTest, AStepTakesLongerWhileNobodyWaitsForANextToken) {
  Start({.prefill_ms = 20, .cache_prompts = false});
  engine_.on_decode = [this](std::span<const BatchToken> batch) {
    clock_.Advance(2.0 * static_cast<double>(batch.size()));
  };
  StepUntilEnded(SendLong(20, 1));  // tells the pace
  const size_t before = engine_.batches.size();
  StepUntilEnded(SendLong(350, 1));
  EXPECT_EQ(engine_.batches.size() - before, 5u) << "350 tokens, 5 * 16 at once: 10 would take 20 ms, 16 is the least";
}

TEST_F(EngineLoopTest, AShortPromptDoesNotWaitForALongOne) {
  Start({.batch_tokens = 20, .cache_prompts = false});
  const Sent longer = SendLong(300, 4);
  Step();
  const Sent shorter = SendLong(15, 4);
  Steps(3);
  EXPECT_FALSE(shorter.listener->tokens.empty());
  EXPECT_TRUE(longer.listener->tokens.empty());
}

TEST_F(EngineLoopTest, MaxTokensZeroComputesThePromptAndAnswersNothing) {
  Start();
  const Sent sent = Send(RandomPrompt(random_, 40), 0);
  StepUntilEnded(sent);
  ExpectLoneAnswer(sent);
  EXPECT_EQ(engine_.computed_tokens, 40);
  EXPECT_EQ(engine_.logits_rows, 0);
}

// --- what is told with tokens

double LogSoftmax(const std::vector<float>& logits, int32_t token) {
  double sum = 0;
  for (const float logit : logits) {
    sum += std::exp(static_cast<double>(logit));
  }
  return static_cast<double>(logits[static_cast<size_t>(token)]) - std::log(sum);
}

void ExpectPromptScores(const Sent& sent, int n_top) {
  ASSERT_EQ(sent.listener->prompt_scores.size(), 1u) << "exactly once";
  const auto& scores = sent.listener->prompt_scores[0];
  ASSERT_EQ(scores.size(), sent.prompt.size() - 1);
  for (size_t i = 0; i < scores.size(); ++i) {
    const auto logits = FakeLogits(HashOf(std::span(sent.prompt).first(i + 1)));
    EXPECT_EQ(scores[i].chosen.token, sent.prompt[i + 1]);
    EXPECT_NEAR(scores[i].chosen.logprob, LogSoftmax(logits, sent.prompt[i + 1]), 1e-4);
    ASSERT_EQ(scores[i].top.size(), static_cast<size_t>(n_top));
    if (n_top > 0) {
      EXPECT_EQ(logits[static_cast<size_t>(scores[i].top[0].token)], *std::max_element(logits.begin(), logits.end()));
    }
  }
}

TEST_F(EngineLoopTest, PromptScoresAreTheModelsOwnInChunksAndInOne) {
  for (const int batch_tokens : {7, 2048}) {
    Start({.batch_tokens = batch_tokens});
    LoopRequest scored;
    scored.prompt_scores = true;
    scored.n_top = 3;
    const Sent sent = Send(RandomPrompt(random_, 40), 6, std::move(scored));
    StepUntilEnded(sent);
    ExpectPromptScores(sent, 3);
    ExpectLoneAnswer(sent);
  }
}

TEST_F(EngineLoopTest, PromptScoresWithoutAnAnswer) {
  Start();
  LoopRequest scored;
  scored.prompt_scores = true;
  const Sent sent = Send(RandomPrompt(random_, 40), 0, std::move(scored));
  StepUntilEnded(sent);
  ExpectPromptScores(sent, 0);
  EXPECT_EQ(engine_.logits_rows, 39) << "no head is computed for a token that nobody asked for";
}

TEST_F(EngineLoopTest, PromptScoresOfAPromptComputedBeforeAreComplete) {
  Start();
  const std::vector<int32_t> prompt = RandomPrompt(random_, 40);
  StepUntilEnded(Send(prompt, 3));
  LoopRequest scored;
  scored.prompt_scores = true;
  const Sent sent = Send(prompt, 3, std::move(scored));
  StepUntilEnded(sent);
  ExpectPromptScores(sent, 0);
  EXPECT_EQ(sent.listener->ends[0].cached_tokens, 0);
}

TEST_F(EngineLoopTest, ScoresOfGeneratedTokensAreTheModelsOwn) {
  Start();
  LoopRequest scored;
  scored.n_top = 2;
  const Sent sent = Send(RandomPrompt(random_, 10), 12, std::move(scored));
  StepUntilEnded(sent);
  std::vector<int32_t> tokens = sent.prompt;
  ASSERT_FALSE(sent.listener->scores.empty());
  for (const TokenScores& score : sent.listener->scores) {
    const auto logits = FakeLogits(HashOf(tokens));
    EXPECT_NEAR(score.chosen.logprob, LogSoftmax(logits, score.chosen.token), 1e-4);
    ASSERT_EQ(score.top.size(), 2u);
    EXPECT_GE(score.top[0].logprob, score.top[1].logprob);
    tokens.push_back(score.chosen.token);
  }
}

// --- KV of finished requests

TEST_F(EngineLoopTest, GoesOnInWhatAnEarlierRequestComputed) {
  Start();
  const Sent first = SendLong(60, 10);
  StepUntilEnded(first);
  std::vector<int32_t> prompt = first.prompt;
  prompt.insert(prompt.end(), first.listener->tokens.begin(), first.listener->tokens.end());
  prompt.push_back(3);
  const int64_t before = engine_.computed_tokens;
  const Sent second = Send(prompt, 1);
  StepUntilEnded(second);
  ExpectLoneAnswer(second);
  EXPECT_EQ(second.listener->ends[0].cached_tokens, 69) << "the last token of an answer is not computed";
  EXPECT_EQ(engine_.computed_tokens - before, 2);
  EXPECT_EQ(FreshSnapshot().cached_prompt_tokens, 69);
}

TEST_F(EngineLoopTest, ComputesAtLeastTheLastTokenOfAPromptItKnows) {
  Start();
  const Sent first = SendLong(60, 1);
  StepUntilEnded(first);
  const Sent again = Send(first.prompt, 1);
  StepUntilEnded(again);
  ExpectLoneAnswer(again);
  EXPECT_EQ(again.listener->ends[0].cached_tokens, 59);
}

TEST_F(EngineLoopTest, TakesNothingOverWhereItIsNotWanted) {
  Start({.cache_prompts = false});
  StepUntilEnded(SendLong(60, 1));
  EXPECT_EQ(engine_.n_sequences(), 0u);
  Start();
  const Sent first = SendLong(60, 1);
  StepUntilEnded(first);
  LoopRequest uncached;
  uncached.cache_prompt = false;
  const Sent again = Send(first.prompt, 1, std::move(uncached));
  StepUntilEnded(again);
  EXPECT_EQ(again.listener->ends[0].cached_tokens, 0);
  EXPECT_EQ(engine_.takeovers, 0);
}

TEST_F(EngineLoopTest, FinishedKvGivesWayToRequestsInFlight) {
  Start();
  std::vector<Sent> sent;
  for (int i = 0; i < 12; ++i) {
    sent.push_back(SendLong(80, 30));
    StepUntilEnded(sent.back());
    ExpectLoneAnswer(sent.back());
    EXPECT_LE(engine_.used_cells(), kCapacity);
  }
  EXPECT_GT(FreshSnapshot().cached_cells, 200) << "as much as there is room for stays";
  const Sent again = Send(sent.back().prompt, 2);
  StepUntilEnded(again);
  EXPECT_EQ(again.listener->ends[0].cached_tokens, 79) << "the newest is still there";
}

// --- refusals

TEST_F(EngineLoopTest, RefusesWhatExceedsTheContext) {
  Start({.request_cells = 100});
  EXPECT_TRUE(TrySend(RandomPrompt(random_, 51), 50).ok()) << "the last token is not computed";
  const auto refused = TrySend(RandomPrompt(random_, 51), 51);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(refused.status().message(), HasSubstr("100"));
  EXPECT_FALSE(TrySend(RandomPrompt(random_, 5), INT64_MAX).ok());
  EXPECT_EQ(loop_->snapshot().refused, 2);
}

TEST_F(EngineLoopTest, RefusesTokensThatTheModelDoesNotHave) {
  Start();
  for (const int32_t unknown : {kFakeVocabulary, -1}) {
    const auto refused = TrySend({1, unknown, 2}, 5);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.status().code(), ErrorCode::kInvalidArgument);
  }
}

TEST_F(EngineLoopTest, RefusesWhatTheBudgetHasNoRoomForEvenAlone) {
  limit_.bytes = kProcess + kWeights - 2 * ManySequencesEngine::kFfnBytes;
  const FloorPolicy strict(8);
  Start({}, &strict);
  const int64_t largest = loop_->snapshot().largest_request_cells;
  EXPECT_GT(largest, 0);
  EXPECT_LT(largest, kCapacity);
  EXPECT_TRUE(TrySend(RandomPrompt(random_, largest), 1).ok());
  const auto too_large = TrySend(RandomPrompt(random_, largest), 2);
  ASSERT_FALSE(too_large.ok());
  EXPECT_EQ(too_large.status().code(), ErrorCode::kOutOfBudget);
  EXPECT_THAT(too_large.status().message(), HasSubstr(std::to_string(limit_.bytes)));
  EXPECT_THAT(too_large.status().message(), HasSubstr(std::to_string(largest)));
}

TEST_F(EngineLoopTest, RefusesWhenTheQueueIsFullAndTakesMoreWhenItIsNot) {
  Start({.max_running = 1, .max_waiting = 3});
  std::vector<Sent> sent;
  for (int i = 0; i < 4; ++i) {
    sent.push_back(SendLong(5, 5));
  }
  EXPECT_EQ(TrySend({1, 2}, 1).status().code(), ErrorCode::kBusy);
  Step();  // one of them runs now, as it was counted to
  EXPECT_EQ(TrySend({1, 2}, 1).status().code(), ErrorCode::kBusy);
  StepUntilEnded(sent[0]);
  Step();  // the next one runs
  sent.push_back(SendLong(5, 5));
  EXPECT_EQ(TrySend({1, 2}, 1).status().code(), ErrorCode::kBusy);
  EXPECT_EQ(loop_->snapshot().refused, 3);
  for (const Sent& one : sent) {
    StepUntilEnded(one);
    ExpectLoneAnswer(one);
  }
}

TEST_F(EngineLoopTest, RefusesWhenTheQueueAsksForTooManyCells) {
  Start({.max_running = 1, .max_waiting_cells = 100});
  const Sent runs = SendLong(5, 5);
  SendLong(150, 51);  // one of whatever size may wait
  EXPECT_EQ(TrySend({1, 2}, 1).status().code(), ErrorCode::kBusy);
  StepUntilEnded(runs);
  Step();
  SendLong(50, 51);
  EXPECT_EQ(TrySend({1, 2}, 1).status().code(), ErrorCode::kBusy);
}

TEST_F(EngineLoopTest, OnlyThoseWhoHaveToWaitCountForTheQueue) {
  Start({.max_running = 2, .max_waiting = 0});
  const Sent first = SendLong(5, 5);
  const Sent second = SendLong(5, 20);
  EXPECT_EQ(TrySend({1, 2}, 1).status().code(), ErrorCode::kBusy) << "both slots are spoken for";
  Step();
  EXPECT_EQ(TrySend({1, 2}, 1).status().code(), ErrorCode::kBusy) << "both slots are taken";
  StepUntilEnded(first);
  const Sent third = SendLong(5, 5);
  EXPECT_EQ(TrySend({1, 2}, 1).status().code(), ErrorCode::kBusy);
  for (const Sent& one : {second, third}) {
    StepUntilEnded(one);
    ExpectLoneAnswer(one);
  }
  // Behind one that waits for memory nobody is admitted, whatever is free.
  Start({.max_running = 4, .max_waiting = 1});
  SendLong(250, 51);
  Step();
  SendLong(250, 51);
  Step();
  EXPECT_EQ(FreshSnapshot().waiting, 1);
  EXPECT_EQ(TrySend({1, 2}, 1).status().code(), ErrorCode::kBusy);
}

TEST_F(EngineLoopTest, WhoHasHisAnswerMaySendTheNextRequestAtOnce) {
  Start({.max_running = 1, .max_waiting = 0});
  const Sent first = SendLong(5, 5);
  Sent second;
  first.listener->on_end = [&] { second = Send(RandomPrompt(random_, 5), 5); };
  StepUntilEnded(first);
  ASSERT_NE(second.id, 0) << "refused, though nobody runs";
  EXPECT_EQ(TrySend({1, 2}, 1).status().code(), ErrorCode::kBusy);
  StepUntilEnded(second);
  ExpectLoneAnswer(second);
}

TEST_F(EngineLoopTest, SamplersAreMadeWhenRequestsAreAdmitted) {
  Start({.max_running = 1});
  int made = 0;
  const auto send = [&](int64_t max_tokens) {
    LoopRequest extra;
    extra.make_sampler = [&made] {
      ++made;
      return MakeHistorySampler();
    };
    return Send(RandomPrompt(random_, 5), max_tokens, std::move(extra));
  };
  const Sent first = send(5);
  const Sent second = send(5);
  const Sent scored = send(0);
  EXPECT_EQ(made, 0);
  Step();
  EXPECT_EQ(made, 1);
  for (const Sent& one : {first, second}) {
    StepUntilEnded(one);
    ExpectLoneAnswer(one);
  }
  StepUntilEnded(scored);
  EXPECT_EQ(made, 2) << "nothing is sampled for a prompt alone";
}

TEST_F(EngineLoopTest, WithoutASamplerARequestEndsAndTheOthersGoOn) {
  Start({.max_running = 1});
  LoopRequest bad;
  bad.make_sampler = []() -> Result<std::unique_ptr<Sampler>> { return InvalidArgument("no such grammar"); };
  const Sent failed = Send({1, 2, 3}, 5, std::move(bad));
  const Sent good = SendLong(5, 5);
  StepUntilEnded(good);
  ExpectLoneAnswer(good);
  ASSERT_EQ(failed.listener->ends.size(), 1u);
  EXPECT_EQ(failed.listener->ends[0].reason, FinishReason::kFailed);
  EXPECT_THAT(failed.listener->ends[0].status.message(), HasSubstr("no such grammar"));
  EXPECT_EQ(engine_.n_sequences(), 0u + (loop_->options().cache_prompts ? 1u : 0u));
}

// --- ends before their time

TEST_F(EngineLoopTest, CancelEndsARequestOnceWhereverItIs) {
  Start({.max_running = 2, .batch_tokens = 4});
  const Sent decoding = SendLong(3, 50);
  const Sent bystander = SendLong(3, 50);
  Steps(5);
  loop_->Cancel(bystander.id);
  Step();
  const Sent prefilling = SendLong(60, 10);
  const Sent queued = SendLong(3, 10);
  Steps(2);
  ASSERT_FALSE(decoding.listener->tokens.empty());
  ASSERT_FALSE(prefilling.listener->prefills.empty());
  ASSERT_TRUE(prefilling.listener->tokens.empty());
  ASSERT_TRUE(queued.listener->prefills.empty());
  const Sent unseen = SendLong(3, 10);
  const std::vector<Sent> all = {decoding, prefilling, queued, unseen};
  for (const Sent& sent : all) {
    loop_->Cancel(sent.id);
    loop_->Cancel(sent.id);
  }
  Steps(2);
  for (const Sent& sent : all) {
    loop_->Cancel(sent.id);
  }
  Steps(2);
  for (const Sent& sent : all) {
    ASSERT_EQ(sent.listener->ends.size(), 1u);
    EXPECT_EQ(sent.listener->ends[0].reason, FinishReason::kCancelled);
  }
  const LoopSnapshot snapshot = FreshSnapshot();
  EXPECT_EQ(snapshot.cancelled, 5);
  EXPECT_EQ(snapshot.running + snapshot.waiting, 0);
  EXPECT_EQ(snapshot.reserved_cells, 0);
}

TEST_F(EngineLoopTest, AListenerMayCancelItsOwnRequest) {
  Start();
  const Sent sent = SendLong(5, 50);
  sent.listener->on_token = [&] {
    if (sent.listener->tokens.size() == 3) {
      loop_->Cancel(sent.id);
    }
  };
  StepUntilEnded(sent);
  EXPECT_EQ(sent.listener->tokens.size(), 3u);
  EXPECT_EQ(sent.listener->ends[0].reason, FinishReason::kCancelled);
  EXPECT_EQ(sent.listener->ends[0].generated_tokens, 3);
}

TEST_F(EngineLoopTest, AFailingStepEndsItsBatchAndNobodyElse) {
  Start({.max_running = 2});
  const Sent a = SendLong(5, 50);
  const Sent b = SendLong(5, 50);
  const Sent waits = SendLong(5, 10);
  Steps(3);
  engine_.failing_decodes = 1;
  Step();
  for (const Sent& sent : {a, b}) {
    ASSERT_EQ(sent.listener->ends.size(), 1u);
    EXPECT_EQ(sent.listener->ends[0].reason, FinishReason::kFailed);
    EXPECT_THAT(sent.listener->ends[0].status.message(), HasSubstr("the device is lost"));
  }
  EXPECT_EQ(engine_.n_sequences(), 0u) << "nobody goes on in what a failing engine left";
  StepUntilEnded(waits);
  ExpectLoneAnswer(waits);
  EXPECT_EQ(FreshSnapshot().failed, 2);
}

TEST_F(EngineLoopTest, ASamplerThatRefusesEndsItsOwnRequestOnly) {
  Start();
  LoopRequest refused;
  refused.make_sampler = []() -> Result<std::unique_ptr<Sampler>> {
    auto sampler = std::make_unique<HistorySampler>();
    sampler->refuses = 3;
    return std::unique_ptr<Sampler>(std::move(sampler));
  };
  Sent bad;
  do {
    bad.prompt = RandomPrompt(random_, 8);
  } while (AnswerAlone(bad.prompt, 5).reason != FinishReason::kLength);
  bad = Send(bad.prompt, 20, std::move(refused));
  const Sent good = SendLong(8, 20);
  StepUntilEnded(bad);
  StepUntilEnded(good);
  EXPECT_EQ(bad.listener->ends[0].reason, FinishReason::kFailed);
  EXPECT_EQ(bad.listener->tokens.size(), 2u);
  ExpectLoneAnswer(good);
}

TEST_F(EngineLoopTest, TheEndOfTheLoopIsAnEndForItsRequests) {
  Start({.max_running = 1});
  const Sent running = SendLong(5, 50);
  const Sent queued = SendLong(5, 50);
  Steps(3);
  const Sent unseen = SendLong(5, 50);
  loop_.reset();
  for (const Sent& sent : {running, queued, unseen}) {
    ASSERT_EQ(sent.listener->ends.size(), 1u);
    EXPECT_EQ(sent.listener->ends[0].reason, FinishReason::kShutdown);
  }
}

// --- what is measured

class CountingObserver final : public LoopObserver {
 public:
  void OnFirstToken(double seconds) override { first.push_back(seconds); }
  void OnInterToken(double seconds) override { inter.push_back(seconds); }
  void OnRequestEnd(const RequestEnd& end) override { ends.push_back(end); }
  void OnTransition(const TransitionEvent&) override { ++transitions; }
  std::vector<double> first, inter;
  std::vector<RequestEnd> ends;
  int transitions = 0;
};

TEST_F(EngineLoopTest, TimesAreThoseOfTheClock) {
  CountingObserver observer;
  Start({.max_running = 1, .cache_prompts = false}, nullptr, &observer);
  engine_.on_decode = [this](std::span<const BatchToken>) { clock_.Advance(100); };
  const Sent first = SendLong(5, 3);
  const Sent second = SendLong(5, 1);
  Steps(4, 0);
  EXPECT_EQ(observer.first.size(), 2u);
  EXPECT_NEAR(observer.first[0], 0.1, 1e-6);
  EXPECT_NEAR(observer.first[1], 0.4, 1e-6);
  ASSERT_EQ(observer.inter.size(), 2u);
  EXPECT_NEAR(observer.inter[1], 0.1, 1e-6);
  ASSERT_EQ(observer.ends.size(), 2u);
  const RequestEnd& end = second.listener->ends.at(0);
  EXPECT_NEAR(end.queue_ms, 300, 1e-6);
  EXPECT_NEAR(end.prefill_ms, 100, 1e-6);
  EXPECT_NEAR(first.listener->ends.at(0).decode_ms, 200, 1e-6);
}

TEST_F(EngineLoopTest, TheSnapshotAddsUp) {
  Start();
  const Sent sent = SendLong(20, 10);
  Steps(3);
  LoopSnapshot snapshot = loop_->snapshot();
  EXPECT_EQ(snapshot.reserved_cells, 29);
  ASSERT_EQ(snapshot.requests.size(), 1u);
  EXPECT_EQ(snapshot.requests[0].state, RequestView::State::kDecode);
  EXPECT_EQ(snapshot.requests[0].generated_tokens, 3);
  EXPECT_EQ(snapshot.requests[0].prefilled_tokens, 20);
  StepUntilEnded(sent);
  snapshot = FreshSnapshot();
  EXPECT_EQ(snapshot.prompt_tokens, 20);
  EXPECT_EQ(snapshot.generated_tokens, 10);
  EXPECT_EQ(snapshot.completed, 1);
  EXPECT_EQ(snapshot.used_cells, 29);
  EXPECT_EQ(snapshot.cached_cells, 29);
  EXPECT_EQ(snapshot.managed.total(), engine_.memory_in_use().total());
  EXPECT_EQ(*snapshot.plan, engine_.plan());
  EXPECT_EQ(snapshot.policy, "data-free");
  EXPECT_TRUE(snapshot.requests.empty());
}

}  // namespace
}  // namespace espalier
