// The ladder, through the loop: what gives way to a limit, in which order, and how it comes back.
#include "serving/memory_keeper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "serving/loop_fixture_for_test.h"

namespace espalier {
namespace {

using Kind = ServingEvent::Kind;

class MemoryKeeperTest : public LoopFixture {
 protected:
  static constexpr uint64_t kNothing = kProcess + ManySequencesEngine::kGlobalBytes;  // every block dropped
  static constexpr uint64_t kDenseWeights = kProcess + kWeights;

  int Kept() const { return FloorPolicy::Kept(engine_.plan()); }
};

TEST_F(MemoryKeeperTest, ALowerLimitIsMetByTheEndOfTheStepAndNobodyIsLost) {
  Start({.max_running = 4});
  std::vector<Sent> sent;
  for (int i = 0; i < 4; ++i) {
    sent.push_back(SendLong(30, 60));
  }
  Steps(10);
  for (uint64_t limit = used() - 500; limit > kNothing + 500; limit -= 1700) {
    SetLimit(limit);
    Step();
    EXPECT_LE(used(), limit);
    EXPECT_EQ(loop_->snapshot().violations, 0);
  }
  SetLimit(10 * kEverything);
  for (const Sent& one : sent) {
    StepUntilEnded(one);
    ExpectLoneAnswer(one);
  }
  EXPECT_EQ(FreshSnapshot().violations, 0);
}

TEST_F(MemoryKeeperTest, ALimitIsHeldFromTheFirstStep) {
  limit_.bytes = kDenseWeights - 5000;
  Start();
  SendLong(30, 20);
  Step();
  EXPECT_LE(used(), limit_.bytes);
  EXPECT_EQ(loop_->snapshot().planned_bytes, limit_.bytes);
}

TEST_F(MemoryKeeperTest, WithoutWakeALimitIsSeenAtTheNextTick) {
  Start();
  Step(0);
  limit_.bytes = kDenseWeights - 5000;
  Step(200);
  EXPECT_TRUE(engine_.plan().dense());
  Step(60);
  EXPECT_FALSE(engine_.plan().dense());
}

TEST_F(MemoryKeeperTest, WhatRequestsHoldBesideTheirKvIsUsedAndTakesBlocksAway) {
  limit_.bytes = kDenseWeights + 20000;
  Start();
  const Sent sent = SendLong(30, 200);
  Steps(3);
  ASSERT_TRUE(engine_.plan().dense());
  constexpr uint64_t kHeap = 19000;
  limit_.unplanned_bytes = kHeap;
  Steps(10);
  EXPECT_FALSE(engine_.plan().dense());
  EXPECT_LE(used() + kHeap, limit_.bytes);
  EXPECT_EQ(FreshSnapshot().process_bytes, kProcess + kHeap);
  EXPECT_EQ(FreshSnapshot().violations, 0);
  limit_.unplanned_bytes = 0;
  StepUntilEnded(sent);
  ExpectLoneAnswer(sent);
  Steps(200);
  EXPECT_TRUE(engine_.plan().dense());
}

TEST_F(MemoryKeeperTest, SomebodyIsServedHoweverMuchRequestsHoldBesideTheirKv) {
  limit_.bytes = kDenseWeights + 20000;
  limit_.unplanned_bytes = 10 * kEverything;
  Start();
  const Sent sent = SendLong(1, 1);
  StepUntilEnded(sent);
  EXPECT_GT(FreshSnapshot().violations, 0) << "and it is said";
}

TEST_F(MemoryKeeperTest, TheYoungestGivesWayFirstAndTheOldestFinishes) {
  const FloorPolicy policy(2 * kLayers);  // no block may go: only requests can
  Start({.max_running = 3, .cache_prompts = false}, &policy);
  const Sent oldest = SendLong(30, 60);
  const Sent middle = SendLong(30, 60);
  const Sent youngest = SendLong(30, 60);
  Steps(8);
  SetLimit(kDenseWeights + 2 * 90 * kRowBytes);
  Step();
  EXPECT_LE(used(), limit_.bytes);
  LoopSnapshot snapshot = FreshSnapshot();
  EXPECT_EQ(snapshot.running, 2);
  EXPECT_EQ(snapshot.requests.back().id, youngest.id);
  SetLimit(kDenseWeights + 1 * 90 * kRowBytes);
  Step();
  snapshot = FreshSnapshot();
  EXPECT_EQ(snapshot.running, 1);
  EXPECT_EQ(snapshot.requests[0].id, oldest.id);
  EXPECT_EQ(snapshot.requests[1].id, middle.id) << "the older of those that wait comes back first";
  EXPECT_EQ(snapshot.preemptions, 2);
  EXPECT_EQ(CountEvents(Kind::kPreempt), 2);
  StepUntilEnded(oldest);
  EXPECT_FALSE(youngest.listener->ended());
  for (const Sent& sent : {oldest, middle, youngest}) {
    StepUntilEnded(sent);
    ExpectLoneAnswer(sent);
  }
  EXPECT_EQ(oldest.listener->ends[0].preemptions, 0);
  EXPECT_EQ(youngest.listener->ends[0].preemptions, 1);
  EXPECT_EQ(FreshSnapshot().preemptions, 2) << "nobody was let in only to be thrown out";
}

TEST_F(MemoryKeeperTest, AnOldRequestThatHadToWaitIsNotTheFirstToGiveWay) {
  const FloorPolicy policy(2 * kLayers);
  Start({.max_running = 3, .cache_prompts = false}, &policy);
  const Sent old = SendLong(100, 101);
  Steps(3);
  SetLimit(kDenseWeights + 150 * kRowBytes);
  Step();
  const Sent young = SendLong(30, 100);
  Steps(3);
  EXPECT_TRUE(old.listener->tokens.size() < 5 && !young.listener->tokens.empty());
  SetLimit(kDenseWeights + 400 * kRowBytes);
  Steps(60);
  ASSERT_EQ(FreshSnapshot().running, 2);
  SetLimit(kDenseWeights + 210 * kRowBytes);
  Step();
  const LoopSnapshot snapshot = FreshSnapshot();
  ASSERT_EQ(snapshot.running, 1);
  EXPECT_EQ(snapshot.requests[0].id, old.id);
}

TEST_F(MemoryKeeperTest, PromptScoresOfARequestThatGaveWayInItsPromptAreToldOnce) {
  const FloorPolicy policy(2 * kLayers);
  Start({.max_running = 2, .batch_tokens = 16, .cache_prompts = false}, &policy);
  const Sent first = SendLong(10, 60);
  LoopRequest extra;
  extra.prompt_scores = true;
  const Sent scored = Send(RandomPrompt(random_, 100), 4, std::move(extra));
  Steps(4);
  ASSERT_FALSE(scored.listener->prefills.empty());
  ASSERT_LT(scored.listener->prefills.back().first, 100);
  SetLimit(kDenseWeights + 110 * kRowBytes);
  Step();
  ASSERT_EQ(FreshSnapshot().preemptions, 1);
  SetLimit(10 * kEverything);
  StepUntilEnded(scored);
  ExpectLoneAnswer(scored);
  ASSERT_EQ(scored.listener->prompt_scores.size(), 1u);
  ASSERT_EQ(scored.listener->prompt_scores[0].size(), 99u);
  for (size_t i = 0; i < 99; ++i) {
    EXPECT_EQ(scored.listener->prompt_scores[0][i].chosen.token, scored.prompt[i + 1]);
  }
  EXPECT_LE(engine_.logits_rows, 60 + 99 + 4) << "no row twice";
}

TEST_F(MemoryKeeperTest, BelowTheMinimumEverythingWaitsAndGoesOnWhenTheLimitReturns) {
  const FloorPolicy policy(1);
  Start({.max_running = 2}, &policy);
  const Sent a = SendLong(30, 40);
  const Sent b = SendLong(30, 40);
  Steps(6);
  SetLimit(kNothing - 1);
  Step();
  const auto after = loop_->events().last_number();
  const size_t batches = engine_.batches.size();
  const int asked = policy.asked;
  for (int i = 0; i < 100; ++i) {
    EXPECT_FALSE(Step()) << "there is nothing to do, and the loop must be able to sleep";
  }
  EXPECT_EQ(engine_.batches.size(), batches);
  EXPECT_TRUE(engine_.plan().keeps_nothing());
  EXPECT_EQ(engine_.used_cells(), 0);
  EXPECT_EQ(loop_->events().last_number(), after) << "told once, not every step";
  EXPECT_EQ(policy.asked, asked);
  SetLimit(kNothing - 2);
  Step();
  EXPECT_EQ(CountEvents(Kind::kBelowFloor), 1);
  EXPECT_EQ(FreshSnapshot().waiting, 2);
  EXPECT_EQ(TrySend({1, 2}, 2).status().code(), ErrorCode::kOutOfBudget);
  SetLimit(10 * kEverything);
  for (const Sent& sent : {a, b}) {
    StepUntilEnded(sent);
    ExpectLoneAnswer(sent);
  }
  EXPECT_TRUE(engine_.plan().dense());
}

TEST_F(MemoryKeeperTest, NobodyIsAnsweredBelowThePolicysFloor) {
  constexpr int kFloor = 8;
  const FloorPolicy policy(kFloor);
  Start({.max_running = 3}, &policy);
  engine_.on_decode = [&](std::span<const BatchToken>) { EXPECT_GE(Kept(), kFloor); };
  std::vector<Sent> sent;
  for (int i = 0; i < 12; ++i) {
    sent.push_back(SendLong(20, 30));
  }
  for (int round = 0; round < 30; ++round) {
    SetLimit(kNothing + random_() % (kEverything - kNothing));
    Steps(static_cast<int>(random_() % 60));
    EXPECT_LE(used(), std::max(limit_.bytes, kNothing));
  }
  const uint64_t minimum = FreshSnapshot().minimum_bytes;
  SetLimit(minimum - 1);
  Steps(50);
  const size_t batches = engine_.batches.size();
  Steps(50);
  EXPECT_EQ(engine_.batches.size(), batches);
  SetLimit(10 * kEverything);
  for (const Sent& one : sent) {
    StepUntilEnded(one);
    ExpectLoneAnswer(one);
  }
}

TEST_F(MemoryKeeperTest, TheMinimumIsTheSmallestLimitThatServesAnything) {
  const FloorPolicy policy(8);
  Start({}, &policy);
  const uint64_t minimum = loop_->snapshot().minimum_bytes;
  const Workload least = Workload::Uniform(1, 1);
  const Observation at = {&engine_.memory_model(), least, minimum, kProcess};
  const Observation below = {&engine_.memory_model(), least, minimum - 1, kProcess};
  EXPECT_TRUE(policy.Decide(at).ok());
  EXPECT_FALSE(policy.Decide(below).ok());
}

// Keeps one half of the blocks or the other, whichever `second` says: plans of which none is part of the other.
class HalvesPolicy final : public Policy {
 public:
  const char* name() const override { return "halves"; }
  Result<Decision> Decide(const Observation& observation) const override {
    Plan plan = Plan::Nothing(observation.n_layer());
    for (int b = second ? observation.n_layer() : 0; b < (second ? 2 : 1) * observation.n_layer(); ++b) {
      plan.Restore({b});
    }
    return Decision{plan, FootprintOf(observation, plan), {}};
  }
  std::vector<BlockId> DropOrder(int n_layer) const override { return DataFreePolicy().DropOrder(n_layer); }
  bool second = false;
};

TEST_F(MemoryKeeperTest, NobodyIsAnsweredByTheRestThatTwoPlansHaveInCommon) {
  HalvesPolicy policy;
  Start({}, &policy);
  const Sent sent = SendLong(20, 40);
  engine_.on_decode = [&](std::span<const BatchToken>) { EXPECT_EQ(Kept(), kLayers); };
  Steps(5);
  policy.second = true;
  SetLimit(limit_.bytes - 1);
  for (int i = 0; i < kLayers - 1; ++i) {
    const size_t batches = engine_.batches.size();
    EXPECT_TRUE(Step()) << "but blocks come";
    EXPECT_EQ(engine_.batches.size(), batches);
  }
  limit_.pressure = true;  // what is missing of the plan is no growth
  StepUntilEnded(sent);
  ExpectLoneAnswer(sent);
}

TEST_F(MemoryKeeperTest, RequestsGoOnWhileBlocksComeBackAHelpingAtATime) {
  limit_.bytes = kNothing + 2 * ManySequencesEngine::kFfnBytes + 4000;
  Start({.grow_after_ms = 2000});
  const Sent sent = SendLong(20, 100);
  Steps(3);
  const int kept = Kept();
  SetLimit(10 * kEverything);
  int steps = 0;
  while (Kept() < 2 * kLayers && steps < 100) {
    const int before = Kept();
    const size_t tokens = sent.listener->tokens.size();
    Step();
    ++steps;
    EXPECT_LE(Kept(), before + 1);
    EXPECT_EQ(sent.listener->tokens.size(), tokens + 1);
  }
  EXPECT_LT(kept, 2 * kLayers);
  EXPECT_TRUE(engine_.plan().dense());
  StepUntilEnded(sent);
  ExpectLoneAnswer(sent);
}

TEST_F(MemoryKeeperTest, ADeliberateRiseIsFollowedAfterGrowAfterNotBefore) {
  limit_.bytes = kDenseWeights - 4000;
  Start({.grow_after_ms = 2000});
  Steps(5);
  const Plan pruned = engine_.plan();
  ASSERT_FALSE(pruned.dense());
  SetLimit(kDenseWeights + 5000);  // a small one, of 12 %, and then of 1 %
  for (int ms = 0; ms < 1900; ms += 100) {
    Step(100);
    EXPECT_EQ(engine_.plan(), pruned);
  }
  Steps(40, 100);
  EXPECT_TRUE(engine_.plan().dense());
  SetLimit(kDenseWeights + 5400);
  Steps(40, 100);
  EXPECT_EQ(FreshSnapshot().planned_bytes, kDenseWeights + 5400);
}

TEST_F(MemoryKeeperTest, AttentionThatCameBackIsUsedByRunningRequestsAgain) {
  Start({.grow_after_ms = 500});
  const Sent sent = SendLong(40, 200);
  Steps(5);
  SetLimit(kNothing + 5 * ManySequencesEngine::kFfnBytes);
  Steps(5);
  ASSERT_LT(engine_.plan().kept_attention(), kLayers);
  SetLimit(10 * kEverything);
  Steps(60);
  ASSERT_TRUE(engine_.plan().dense());
  ASSERT_FALSE(sent.listener->ended());
  EXPECT_GE(CountEvents(Kind::kReprefill), 1);
  EXPECT_EQ(engine_.memory_in_use().kv_bytes, static_cast<uint64_t>(engine_.used_cells()) * kRowBytes)
      << "there are rows for every token in every block";
  const int reprefills = CountEvents(Kind::kReprefill);
  StepUntilEnded(sent);
  ExpectLoneAnswer(sent);
  EXPECT_EQ(CountEvents(Kind::kReprefill), reprefills);
}

TEST_F(MemoryKeeperTest, NothingIsComputedAgainForTheSakeOfAFewTokensMore) {
  Start({.grow_after_ms = 500, .reprefill_ratio = 0.1});
  const Sent sent = SendLong(40, 60);
  Steps(5);
  SetLimit(kNothing + 5 * ManySequencesEngine::kFfnBytes);
  Steps(5);
  SetLimit(10 * kEverything);
  StepUntilEnded(sent);
  EXPECT_EQ(CountEvents(Kind::kReprefill), 0);
  ExpectLoneAnswer(sent);
}

TEST_F(MemoryKeeperTest, FinishedKvGoesBeforeBlocksDo) {
  Start({.hold_ms = 100});
  const Sent first = SendLong(100, 50);
  StepUntilEnded(first);
  Steps(5);
  ASSERT_GT(FreshSnapshot().cached_cells, 100);
  SetLimit(kDenseWeights + 50 * kRowBytes);
  Step();
  EXPECT_TRUE(engine_.plan().dense());
  EXPECT_LE(used(), limit_.bytes);
  EXPECT_EQ(FreshSnapshot().cached_cells, 0);
  EXPECT_EQ(CountEvents(Kind::kTrim), 1);
}

TEST_F(MemoryKeeperTest, FinishedKvNeverExceedsLimitOrCapacity) {
  limit_.bytes = kDenseWeights + 200 * kRowBytes;
  Start({.max_running = 2});
  engine_.on_decode = [&](std::span<const BatchToken> batch) {
    EXPECT_LE(used() + batch.size() * kRowBytes, limit_.bytes);
  };
  for (int i = 0; i < 40; ++i) {
    const auto prompt = static_cast<int64_t>(10 + random_() % 60);
    const Sent sent = SendLong(prompt, 1 + static_cast<int64_t>(random_() % 30));
    if (i % 3 != 0) {
      StepUntilEnded(sent);
    }
    EXPECT_LE(used(), limit_.bytes);
  }
  EXPECT_TRUE(engine_.plan().dense()) << "finished KV takes no blocks away";
  EXPECT_GT(FreshSnapshot().cached_cells, 50);
}

TEST_F(MemoryKeeperTest, AChangeOfPlanForgetsWhatEarlierRequestsComputed) {
  Start();
  const Sent first = SendLong(60, 5);
  StepUntilEnded(first);
  SetLimit(kDenseWeights - 3000);
  Step();
  const Sent again = Send(first.prompt, 5);
  StepUntilEnded(again);
  ExpectLoneAnswer(again);
  EXPECT_EQ(again.listener->ends[0].cached_tokens, 0);
}

TEST_F(MemoryKeeperTest, PressureGivesFinishedKvBackAndLetsNothingGrow) {
  limit_.bytes = kDenseWeights - 3000;
  Start({.grow_after_ms = 500});
  const Sent first = SendLong(60, 5);
  StepUntilEnded(first);
  ASSERT_GT(FreshSnapshot().cached_cells, 0);
  const Plan pruned = engine_.plan();
  limit_.pressure = true;
  SetLimit(10 * kEverything);
  Steps(100);
  EXPECT_EQ(FreshSnapshot().cached_cells, 0);
  EXPECT_EQ(engine_.plan(), pruned);
  EXPECT_EQ(CountEvents(Kind::kTrim), 1);
  limit_.pressure = false;
  Steps(100);
  EXPECT_TRUE(engine_.plan().dense());
}

TEST_F(MemoryKeeperTest, UnderPressureBlocksThatAreOnTheirWayWait) {
  limit_.bytes = kDenseWeights - 12000;
  Start({.grow_after_ms = 500});
  Steps(3);
  SetLimit(10 * kEverything);
  while (FreshSnapshot().pending.empty()) {
  }
  const int kept = Kept();
  limit_.pressure = true;
  loop_->Wake();
  Steps(50);
  EXPECT_EQ(Kept(), kept);
  limit_.pressure = false;
  Steps(50);
  EXPECT_TRUE(engine_.plan().dense());
}

TEST_F(MemoryKeeperTest, FinishedKvLeavesRoomForBlocksThatAreOnTheirWay) {
  limit_.bytes = kDenseWeights - 12000;
  Start({.grow_after_ms = 500, .hold_ms = 100});
  engine_.on_load = [&] { EXPECT_LE(used(), limit_.bytes); };
  Steps(3);
  engine_.failing_loads = 1;
  SetLimit(kDenseWeights + 40 * kRowBytes);
  while (CountEvents(Kind::kError) == 0) {
    Step();
  }
  for (int i = 0; i < 8; ++i) {  // while the next try has to wait
    StepUntilEnded(SendLong(30, 4));
  }
  ASSERT_FALSE(engine_.plan().dense());
  Steps(150);
  EXPECT_TRUE(engine_.plan().dense());
}

TEST_F(MemoryKeeperTest, PressureDoesNotKeepALimitFromFalling) {
  Start();
  Step();
  limit_.pressure = true;
  SetLimit(kDenseWeights - 3000);
  Step();
  EXPECT_LE(used(), limit_.bytes);
}

TEST_F(MemoryKeeperTest, RoomForRequestsThatEndedIsHeldForAWhileAndThenBlocksComeBack) {
  limit_.bytes = kDenseWeights + 50 * kRowBytes;
  Start({.cache_prompts = false, .hold_ms = 10000});
  const Sent large = SendLong(150, 20);
  StepUntilEnded(large);
  const int kept = Kept();
  ASSERT_LT(kept, 2 * kLayers);
  Steps(90, 100);
  EXPECT_EQ(Kept(), kept);
  Steps(30, 100);
  EXPECT_TRUE(engine_.plan().dense()) << "though nothing has changed since";
}

TEST_F(MemoryKeeperTest, AFailingLoadIsToldAndTriedAgainLater) {
  limit_.bytes = kDenseWeights - 8000;
  Start({.grow_after_ms = 500});
  const Sent sent = SendLong(20, 150);
  Steps(3);
  engine_.failing_loads = 1;
  SetLimit(10 * kEverything);
  Steps(30);
  ASSERT_EQ(CountEvents(Kind::kError), 1);
  const int applied = engine_.n_applied;
  Steps(40);
  EXPECT_EQ(engine_.n_applied, applied) << "not at once";
  EXPECT_EQ(CountEvents(Kind::kError), 1);
  EXPECT_FALSE(engine_.plan().dense());
  Steps(80);
  EXPECT_TRUE(engine_.plan().dense());
  EXPECT_EQ(CountEvents(Kind::kError), 1);
  StepUntilEnded(sent);
  ExpectLoneAnswer(sent);
}

TEST_F(MemoryKeeperTest, ALimitThatTremblesMovesBlocksAtMostOnceAMinute) {
  for (const uint32_t seed : {1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u}) {
    std::mt19937 random(seed);
    limit_ = {.bytes = kDenseWeights, .source = "system"};
    Start();
    SendLong(10, 5);
    Steps(10);
    const int64_t before = FreshSnapshot().transitions;
    const auto event = loop_->events().last_number();
    int64_t of_first_minute = 0;
    for (int minute = 0; minute < 10; ++minute) {
      const int64_t at_start = loop_->snapshot().transitions;
      for (int tick = 0; tick < 240; ++tick) {
        const double off = 0.03 * (2.0 * static_cast<double>(random()) / static_cast<double>(random.max()) - 1);
        limit_.bytes = static_cast<uint64_t>(static_cast<double>(kDenseWeights) * (1 + off));
        Step(250);
        ASSERT_LE(used(), limit_.bytes);
      }
      const int64_t moved = loop_->snapshot().transitions - at_start;
      if (minute == 0) {
        of_first_minute = moved;  // it has to find out how low the limit gets
      } else {
        EXPECT_LE(moved, 1) << "seed " << seed << ", minute " << minute;
      }
    }
    EXPECT_LE(of_first_minute, 3);
    EXPECT_LE(FreshSnapshot().transitions - before, 10);
    EXPECT_LE(loop_->events().Since(event).size(), 30u) << "nor is the log flooded";
    EXPECT_GT(engine_.plan().kept_ffn(), 0);
    limit_ = {.bytes = 10 * kEverything, .source = "operator", .deliberate = true};
    Steps(200);
  }
}

TEST_F(MemoryKeeperTest, TwoSourcesThatTakeTurnsDoNotFloodTheLog) {
  Start();
  for (int i = 0; i < 400; ++i) {
    limit_ = {.bytes = kEverything + static_cast<uint64_t>(i % 2), .source = i % 2 == 0 ? "cgroup" : "system"};
    Step(250);
  }
  EXPECT_LE(CountEvents(Kind::kLimit), 12);
}

TEST_F(MemoryKeeperTest, EveryLimitThatSomebodySetsIsTold) {
  Start();
  Steps(5);
  const auto after = loop_->events().last_number();
  for (const uint64_t bytes : {kEverything, kEverything + 1, kEverything - 1}) {
    SetLimit(bytes);
    Steps(10);
  }
  const auto events = loop_->events().Since(after);
  std::vector<uint64_t> told;
  for (const ServingEvent& event : events) {
    if (event.kind == Kind::kLimit && (told.empty() || told.back() != event.limit_bytes)) {
      told.push_back(event.limit_bytes);
    }
  }
  EXPECT_EQ(told, (std::vector<uint64_t>{kEverything, kEverything + 1, kEverything - 1}));
}

TEST_F(MemoryKeeperTest, WhoWaitsDoesNotMakeThePolicyThinkBeforeEveryStep) {
  const FloorPolicy policy(2 * kLayers);
  limit_.bytes = kDenseWeights + 120 * kRowBytes;
  Start({.cache_prompts = false}, &policy);
  SendLong(20, 100);
  Steps(3);
  SendLong(20, 100);
  Steps(3);
  ASSERT_EQ(FreshSnapshot().waiting, 1);
  const int asked = policy.asked;
  Steps(20);
  EXPECT_EQ(policy.asked, asked);
}

TEST_F(MemoryKeeperTest, StagingCountsWhenBlocksComeBack) {
  ManySequencesEngine engine(kLayers, kCapacity, 2000);
  EngineLoop::Parts parts = Parts();
  parts.engine = &engine;
  limit_.bytes = kDenseWeights + 1000;  // dense at rest, but the way there takes more
  loop_ = EngineLoop::Create(parts, {});
  Steps(10);
  EXPECT_FALSE(engine.plan().dense());
  loop_.reset();
}

TEST_F(MemoryKeeperTest, ObserversAndEventsTellOfTheSameTransitions) {
  class Counter final : public LoopObserver {
   public:
    void OnTransition(const TransitionEvent&) override { ++n; }
    int n = 0;
  };
  Counter counter;
  Start({.grow_after_ms = 500}, nullptr, &counter);
  Step();
  SetLimit(kDenseWeights - 9000);
  Step();
  SetLimit(10 * kEverything);
  Steps(60);
  ASSERT_TRUE(engine_.plan().dense());
  EXPECT_GE(counter.n, 3);
  EXPECT_EQ(CountEvents(Kind::kTransition), counter.n);
  EXPECT_EQ(FreshSnapshot().transitions, counter.n);
  for (const ServingEvent& event : loop_->events().Since(0)) {
    if (event.kind == Kind::kTransition) {
      EXPECT_EQ(event.transition->predicted_bytes_after, event.transition->after.managed.total());
    }
  }
}

}  // namespace
}  // namespace espalier
