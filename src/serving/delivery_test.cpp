#include "serving/delivery.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "serving/loop_fixture_for_test.h"

namespace espalier {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

class CountingObserver final : public LoopObserver {
 public:
  void OnFirstToken(double seconds) override { first_tokens.push_back(seconds); }
  void OnInterToken(double seconds) override { inter_tokens.push_back(seconds); }
  void OnRequestEnd(const RequestEnd& end) override { ends.push_back(end); }

  std::vector<double> first_tokens;
  std::vector<double> inter_tokens;
  std::vector<RequestEnd> ends;
};

class DeliveryTest : public LoopPartsFixture {
 protected:
  // Runs, and its listener is `listener_`.
  Work& Begin(RequestId id, int64_t prompt_tokens, int64_t max_tokens) {
    std::unique_ptr<Work> work = Asking(id, prompt_tokens, max_tokens);
    Work& begun = *work;
    tenancy_.Begin(std::move(work), keeper_.plan_epoch());
    return begun;
  }
  std::unique_ptr<Work> Asking(RequestId id, int64_t prompt_tokens, int64_t max_tokens) {
    auto work = std::make_unique<Work>();
    work->id = id;
    work->prompt_tokens = prompt_tokens;
    work->tokens.assign(static_cast<size_t>(prompt_tokens), 1);
    work->request.max_tokens = max_tokens;
    work->request.listener = listener_;
    work->submitted = clock_.Now();
    return work;
  }
  // As though a batch of `tokens` of the work alone had run; `token` was sampled if it is not negative.
  void Deliver(Work& work, int64_t tokens, int32_t token = -1, Status status = Status::Ok()) {
    const std::vector<BatchShare> shares = {{&work, tokens}};
    std::vector<SampledToken> sampled;
    if (token >= 0) {
      SampledToken one = {&work, {}, std::move(status)};
      one.scores.chosen.token = token;
      sampled.push_back(std::move(one));
    }
    delivery_.Deliver(shares, sampled, clock_.Now());
  }
  const RequestEnd& End() const { return listener_->ends.at(0); }
  void TearDown() override {
    while (!tenancy_.running().empty()) {
      delivery_.End(*tenancy_.running().back(), FinishReason::kShutdown, Status::Ok(), clock_.Now());
    }
  }

  CountingObserver observer_;
  Delivery delivery_{{.engine = &engine_,
                      .tokenizer = &tokenizer_,
                      .keeper = &keeper_,
                      .tenancy = &tenancy_,
                      .observer = &observer_,
                      .keep_kv = true}};
  std::shared_ptr<RecordingListener> listener_ = std::make_shared<RecordingListener>();
};

TEST_F(DeliveryTest, TellsHowFarThePromptIsAndThenTheTokens) {
  Work& work = Begin(1, 10, 3);
  Deliver(work, 6);
  Deliver(work, 4, 2);
  Deliver(work, 1, 3);
  EXPECT_THAT(listener_->prefills, ElementsAre(Pair(6, 10), Pair(10, 10)));
  EXPECT_THAT(listener_->tokens, ElementsAre(2, 3));
  EXPECT_FALSE(listener_->ended());
  Deliver(work, 1, 4);
  ASSERT_TRUE(listener_->ended());
  EXPECT_EQ(End().reason, FinishReason::kLength);
  EXPECT_EQ(End().generated_tokens, 3);
  EXPECT_EQ(delivery_.counters().prompt_tokens, 10);
  EXPECT_EQ(delivery_.counters().generated_tokens, 3);
  EXPECT_EQ(delivery_.counters().completed, 1);
  EXPECT_TRUE(tenancy_.running().empty());
  EXPECT_EQ(tenancy_.finished_cells(), 12) << "the last token was not computed";
}

TEST_F(DeliveryTest, TheTokenThatEndsTheTextIsNotTold) {
  Work& work = Begin(1, 10, 3);
  Deliver(work, 10, kFakeVocabulary - 1);
  EXPECT_THAT(listener_->tokens, IsEmpty());
  EXPECT_EQ(End().reason, FinishReason::kEndOfText);
  EXPECT_EQ(delivery_.counters().generated_tokens, 0);
}

TEST_F(DeliveryTest, WhatIsComputedAgainIsNotToldAgain) {
  Work& work = Begin(1, 10, 5);
  Deliver(work, 10, 2);
  tenancy_.Restart(work, keeper_.plan_epoch());
  Deliver(work, 7);
  Deliver(work, 4, 3);
  EXPECT_THAT(listener_->prefills, ElementsAre(Pair(10, 10)));
  EXPECT_THAT(listener_->tokens, ElementsAre(2, 3));
  EXPECT_EQ(delivery_.counters().prompt_tokens, 10);
}

TEST_F(DeliveryTest, WhoWantsNoAnswerEndsWithHisPrompt) {
  Work& work = Begin(1, 10, 0);
  Deliver(work, 9);
  EXPECT_FALSE(listener_->ended());
  Deliver(work, 1);
  ASSERT_TRUE(listener_->ended());
  EXPECT_EQ(End().reason, FinishReason::kLength);
  EXPECT_EQ(tenancy_.finished_cells(), 10);
}

TEST_F(DeliveryTest, WhatFailedIsNotKeptForOthers) {
  Work& work = Begin(1, 10, 3);
  Deliver(work, 10, 2, InvalidArgument("the grammar does not allow this"));
  ASSERT_TRUE(listener_->ended());
  EXPECT_EQ(End().reason, FinishReason::kFailed);
  EXPECT_EQ(End().status.message(), "the grammar does not allow this");
  EXPECT_THAT(listener_->tokens, IsEmpty());
  EXPECT_EQ(tenancy_.finished_cells(), 0);
  EXPECT_EQ(delivery_.counters().failed, 1);
}

TEST_F(DeliveryTest, ACancelledAnswerIsKept) {
  Work& work = Begin(1, 10, 3);
  Deliver(work, 10, 2);
  delivery_.End(work, FinishReason::kCancelled, Status::Ok(), clock_.Now());
  EXPECT_EQ(End().reason, FinishReason::kCancelled);
  EXPECT_EQ(delivery_.counters().cancelled, 1);
  EXPECT_EQ(tenancy_.finished_cells(), 10);
}

TEST_F(DeliveryTest, OneThatWaitedEndsWithoutHavingBegun) {
  std::unique_ptr<Work> work = Asking(1, 10, 3);
  clock_.Advance(40);
  delivery_.EndWaiting(std::move(work), FinishReason::kCancelled, clock_.Now());
  ASSERT_TRUE(listener_->ended());
  EXPECT_DOUBLE_EQ(End().queue_ms, 40);
  EXPECT_EQ(End().prefill_ms, 0);
  EXPECT_EQ(End().plan_changes, 0);
  EXPECT_EQ(delivery_.counters().cancelled, 1);
}

TEST_F(DeliveryTest, TheObserverHearsOfTimesAndEnds) {
  Work& work = Begin(1, 10, 3);
  clock_.Advance(500);
  Deliver(work, 10, 2);
  clock_.Advance(30);
  Deliver(work, 1, 3);
  clock_.Advance(50);
  Deliver(work, 1, 4);
  EXPECT_THAT(observer_.first_tokens, ElementsAre(testing::DoubleEq(0.5)));
  EXPECT_THAT(observer_.inter_tokens, ElementsAre(testing::DoubleEq(0.03), testing::DoubleEq(0.05)));
  ASSERT_EQ(observer_.ends.size(), 1u);
  EXPECT_EQ(observer_.ends[0].plan_text, engine_.plan().ToText());
}

}  // namespace
}  // namespace espalier
