#include "serving/loop_publisher.h"

#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "serving/loop_fixture_for_test.h"

namespace espalier {
namespace {

class LoopPublisherTest : public LoopPartsFixture {
 protected:
  LoopInbox inbox_{{}};
  Delivery delivery_{{.engine = &engine_, .tokenizer = &tokenizer_, .keeper = &keeper_, .tenancy = &tenancy_}};
  LoopPublisher publisher_{{.engine = &engine_,
                            .keeper = &keeper_,
                            .tenancy = &tenancy_,
                            .waiting = &waiting_,
                            .delivery = &delivery_,
                            .inbox = &inbox_,
                            .policy = "data-free",
                            .began = clock_.Now()}};
};

TEST_F(LoopPublisherTest, ASnapshotStaysAsItWasPublished) {
  clock_.Advance(1500);
  publisher_.Publish({.count = 3, .last_ms = 20}, clock_.Now());
  auto work = std::make_unique<Work>();
  work->id = 7;
  waiting_.PushBack(std::move(work));
  LoopSnapshot snapshot = publisher_.snapshot();
  EXPECT_DOUBLE_EQ(snapshot.seconds, 1.5);
  EXPECT_EQ(snapshot.steps, 3);
  EXPECT_EQ(snapshot.step_ms, 20);
  EXPECT_EQ(snapshot.policy, "data-free");
  EXPECT_EQ(snapshot.waiting, 0);
  publisher_.Publish({.count = 4, .last_ms = 20}, clock_.Now());
  snapshot = publisher_.snapshot();
  ASSERT_EQ(snapshot.requests.size(), 1u);
  EXPECT_EQ(snapshot.requests[0].id, 7u);
  EXPECT_EQ(snapshot.waiting, 1);
}

TEST_F(LoopPublisherTest, RefusedOnesAreCountedWithoutTheLoopsThread) {
  publisher_.Publish({}, clock_.Now());
  inbox_.CountRefused();
  EXPECT_EQ(publisher_.snapshot().refused, 1);
}

TEST_F(LoopPublisherTest, ThereIsRoomForWhatWasPublished) {
  EXPECT_EQ(publisher_.room().largest_request_cells, 0);
  publisher_.Publish({}, clock_.Now());
  EXPECT_EQ(publisher_.room().largest_request_cells, kCapacity);
  EXPECT_EQ(publisher_.room().planned_bytes, keeper_.planned_bytes());
}

TEST_F(LoopPublisherTest, IsDueWhenTheLastOneIsOld) {
  EXPECT_TRUE(publisher_.due(clock_.Now()));
  publisher_.Publish({}, clock_.Now());
  EXPECT_FALSE(publisher_.due(clock_.Now()));
  clock_.Advance(49);
  EXPECT_FALSE(publisher_.due(clock_.Now()));
  clock_.Advance(1);
  EXPECT_TRUE(publisher_.due(clock_.Now()));
}

TEST_F(LoopPublisherTest, PlansAreCopiedOnlyWhenTheyChange) {
  publisher_.Publish({}, clock_.Now());
  const LoopSnapshot before = publisher_.snapshot();
  publisher_.Publish({}, clock_.Now());
  EXPECT_EQ(publisher_.snapshot().plan, before.plan) << "the same object";
  Plan plan = engine_.plan();
  plan.Drop({0});
  ASSERT_TRUE(engine_.Apply(plan).ok());
  publisher_.Publish({}, clock_.Now());
  EXPECT_EQ(*publisher_.snapshot().plan, plan);
  EXPECT_TRUE(before.plan->dense());
}

}  // namespace
}  // namespace espalier
