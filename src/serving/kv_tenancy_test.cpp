#include "serving/kv_tenancy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "serving/fakes_for_test.h"

namespace espalier {
namespace {

using testing::ElementsAre;

std::vector<int32_t> Counting(int n) {
  std::vector<int32_t> tokens(static_cast<size_t>(n));
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

class KvTenancyTest : public testing::Test {
 protected:
  // Runs from now on.
  Work& Begin(RequestId id, std::vector<int32_t> prompt, int64_t max_tokens = 1, bool cache_prompt = true) {
    auto work = std::make_unique<Work>();
    work->id = id;
    work->prompt_tokens = static_cast<int64_t>(prompt.size());
    work->tokens = std::move(prompt);
    work->request.max_tokens = max_tokens;
    work->request.cache_prompt = cache_prompt;
    Work& begun = *work;
    tenancy_.Begin(std::move(work), epoch_);
    return begun;
  }
  void Compute(Work& work, int64_t n) {
    std::vector<BatchToken> batch;
    for (int64_t i = work.computed; i < work.computed + n; ++i) {
      batch.push_back({work.tokens[static_cast<size_t>(i)], work.sequence, false});
    }
    ASSERT_TRUE(engine_.Decode(batch, [](int64_t, std::span<const float>) {}).ok());
    work.computed += n;
  }
  // A request with this prompt came, was computed, and went; its KV is kept.
  SequenceId Leave(RequestId id, std::vector<int32_t> prompt) {
    Work& work = Begin(id, std::move(prompt), 1, true);
    const SequenceId sequence = work.sequence;
    Compute(work, work.to_compute());
    tenancy_.End(work, true, epoch_);
    return sequence;
  }
  std::vector<RequestId> Running() const {
    std::vector<RequestId> ids;
    for (const auto& work : tenancy_.running()) {
      ids.push_back(work->id);
    }
    return ids;
  }
  void EndAll() {
    while (!tenancy_.running().empty()) {
      tenancy_.End(*tenancy_.running().back(), false, epoch_);
    }
  }
  void TearDown() override { EndAll(); }

  ManySequencesEngine engine_{4, 400};
  WaitingQueue waiting_;
  KvTenancy tenancy_{&engine_, &waiting_};
  int64_t epoch_ = 0;
};

TEST_F(KvTenancyTest, InFlightIsAllThatRunningOnesMayComeToHold) {
  EXPECT_EQ(tenancy_.InFlight(), Workload::None());
  Begin(1, Counting(10), 5);
  Begin(2, Counting(20), 0, false);
  EXPECT_EQ(tenancy_.InFlight(), (Workload{.n_sequences = 2, .kv_cells = 34, .longest_sequence = 20}));
  EXPECT_EQ(tenancy_.Finished(), Workload::None());
}

TEST_F(KvTenancyTest, EveryoneHasASequenceOfHisOwn) {
  const SequenceId first = Begin(1, Counting(10)).sequence;
  const SequenceId second = Begin(2, Counting(10)).sequence;
  EXPECT_NE(first, second);
  const SequenceId third = Leave(3, Counting(10));
  EXPECT_THAT(tenancy_.Sequences(), testing::UnorderedElementsAre(first, second, third));
  EXPECT_EQ(tenancy_.FindRunning(2)->sequence, second);
  EXPECT_EQ(tenancy_.FindRunning(3), nullptr);
}

TEST_F(KvTenancyTest, WhoBeginsAlikeGoesOnInAFinishedSequence) {
  const SequenceId left = Leave(1, Counting(10));
  EXPECT_EQ(tenancy_.Finished(), Workload::Uniform(1, 10));
  const Work& work = Begin(2, Counting(30));
  EXPECT_EQ(work.sequence, left);
  EXPECT_EQ(work.computed, 10);
  EXPECT_EQ(work.cached_tokens, 10);
  EXPECT_EQ(tenancy_.finished_cells(), 0);
}

TEST_F(KvTenancyTest, TheLastTokenIsComputedInAnyCase) {
  const SequenceId left = Leave(1, Counting(10));
  const Work& work = Begin(2, Counting(10));
  EXPECT_EQ(work.sequence, left);
  EXPECT_EQ(work.computed, 9);
  EXPECT_EQ(engine_.SequenceLength(left), 9);
}

TEST_F(KvTenancyTest, NothingIsTakenOverAgainstTheRequestsWill) {
  Leave(1, Counting(10));
  EXPECT_EQ(Begin(2, Counting(30), 1, false).computed, 0);
  auto scored = std::make_unique<Work>();
  scored->id = 3;
  scored->prompt_tokens = 30;
  scored->tokens = Counting(30);
  scored->request.prompt_scores = true;
  tenancy_.Begin(std::move(scored), epoch_);
  EXPECT_EQ(tenancy_.FindRunning(3)->computed, 0) << "scores come out of what is computed";
  EXPECT_EQ(tenancy_.finished_cells(), 10);
}

TEST_F(KvTenancyTest, OnlyWhatMayBeAndWasComputedUnderThisPlanIsKept) {
  const auto end = [&](Work& work, bool keep, int64_t epoch) {
    tenancy_.End(work, keep, epoch);
    EXPECT_EQ(tenancy_.finished_cells(), 0);
    EXPECT_EQ(engine_.n_sequences(), 0u) << "nobody else gives it back";
  };
  Work& unwanted = Begin(1, Counting(10));
  Compute(unwanted, 10);
  end(unwanted, false, epoch_);
  Work& secret = Begin(2, Counting(10), 1, false);
  Compute(secret, 10);
  end(secret, true, epoch_);
  end(Begin(3, Counting(10)), true, epoch_);
  Work& of_another_plan = Begin(4, Counting(10));
  Compute(of_another_plan, 10);
  end(of_another_plan, true, epoch_ + 1);
}

TEST_F(KvTenancyTest, WhoEndsIsHandedOverAsHeWas) {
  Work& work = Begin(1, Counting(10), 5);
  Compute(work, 10);
  work.tokens.push_back(7);  // generated, and not computed
  const std::unique_ptr<Work> ended = tenancy_.End(work, true, epoch_);
  EXPECT_EQ(ended->tokens.size(), 11u);
  EXPECT_EQ(ended->sequence, -1);
  EXPECT_EQ(tenancy_.finished_cells(), 10);
  EXPECT_TRUE(tenancy_.running().empty());
}

TEST_F(KvTenancyTest, TheYoungestByIdGivesWay) {
  Begin(2, Counting(10));
  Begin(5, Counting(10));
  Begin(3, Counting(10));  // had to wait longer
  EXPECT_THAT(Running(), ElementsAre(2, 3, 5));
  Work& youngest = *tenancy_.FindRunning(5);
  Compute(youngest, 10);
  EXPECT_TRUE(tenancy_.Preempt());
  EXPECT_THAT(Running(), ElementsAre(2, 3));
  ASSERT_EQ(waiting_.size(), 1u);
  EXPECT_EQ(waiting_.front().id, 5u);
  EXPECT_EQ(waiting_.front().sequence, -1);
  EXPECT_EQ(waiting_.front().computed, 0);
  EXPECT_EQ(waiting_.front().preemptions, 1);
  EXPECT_EQ(engine_.n_sequences(), 0u);
  EXPECT_TRUE(tenancy_.Preempt());
  EXPECT_TRUE(tenancy_.Preempt());
  EXPECT_FALSE(tenancy_.Preempt());
  EXPECT_EQ(waiting_.front().id, 2u);
  EXPECT_EQ(tenancy_.preemptions(), 3);
}

TEST_F(KvTenancyTest, WhoRestartsHasNothingComputedButMayTakeOver) {
  Work& work = Begin(1, Counting(30));
  Compute(work, 20);
  tenancy_.Restart(work, epoch_);
  EXPECT_EQ(work.computed, 0);
  EXPECT_EQ(engine_.n_sequences(), 0u);
  const SequenceId left = Leave(2, Counting(15));
  tenancy_.Restart(work, epoch_);
  EXPECT_EQ(work.sequence, left);
  EXPECT_EQ(work.computed, 15);
}

TEST_F(KvTenancyTest, FinishedOnesGoWithTheirPlan) {
  Leave(1, Counting(10));
  tenancy_.FollowPlan(epoch_);
  EXPECT_EQ(tenancy_.finished_cells(), 10);
  ++epoch_;
  EXPECT_EQ(Begin(2, Counting(30)).computed, 0) << "not even before they have gone";
  tenancy_.FollowPlan(epoch_);
  EXPECT_EQ(tenancy_.finished_cells(), 0);
  EXPECT_EQ(engine_.n_sequences(), 0u);
  EXPECT_EQ(Begin(3, Counting(30)).computed, 0);
  Leave(4, Counting(10));
  EXPECT_EQ(Begin(5, Counting(30)).computed, 10) << "what the new plan computed may be taken over";
}

TEST_F(KvTenancyTest, AfterAChangeOfPlanNobodyGoesOnInWhatOnlyOthersComputed) {
  Work& first = Begin(1, Counting(10));
  Work& second = Begin(2, Counting(10));
  for (Work* work : {&first, &second}) {
    Compute(*work, 10);
    tenancy_.End(*work, true, epoch_);
  }
  Work& untouched = Begin(3, Counting(30));
  Work& went_on = Begin(4, Counting(30));
  ASSERT_EQ(untouched.computed, 10);
  ASSERT_EQ(went_on.computed, 10);
  Compute(went_on, 1);
  ++epoch_;
  tenancy_.FollowPlan(epoch_);
  EXPECT_EQ(untouched.computed, 0);
  EXPECT_EQ(untouched.cached_tokens, 0);
  EXPECT_EQ(untouched.plan_epoch, epoch_);
  EXPECT_EQ(went_on.computed, 11);
  EXPECT_EQ(went_on.plan_epoch, epoch_ - 1) << "nor is it kept when it ends";
}

TEST_F(KvTenancyTest, FinishedOnesMakeRoomWhereTheEngineHoldsNoMoreSequences) {
  const int most = engine_.options().max_sequences;
  for (int i = 0; i < most; ++i) {
    Leave(static_cast<RequestId>(i + 1), {i, i, i, i, i, i, i, i, i, i});
    EXPECT_LE(tenancy_.Sequences().size(), static_cast<size_t>(most));
  }
  ASSERT_EQ(engine_.n_sequences(), static_cast<size_t>(most));
  const SequenceId oldest = tenancy_.Sequences().front();
  Begin(100, {50, 50, 50});
  EXPECT_EQ(tenancy_.Sequences().size(), static_cast<size_t>(most));
  EXPECT_EQ(engine_.SequenceLength(oldest), 0);
}

TEST_F(KvTenancyTest, TrimsTheOldest) {
  const SequenceId oldest = Leave(1, {1, 2, 3});
  const SequenceId newest = Leave(2, {4, 5, 6});
  EXPECT_TRUE(tenancy_.Trim());
  EXPECT_EQ(engine_.SequenceLength(oldest), 0);
  EXPECT_EQ(engine_.SequenceLength(newest), 3);
  EXPECT_TRUE(tenancy_.Trim());
  EXPECT_FALSE(tenancy_.Trim());
}

TEST(KvTenancy, TheEngineOutlivesIt) {
  ManySequencesEngine engine(4, 400);
  WaitingQueue waiting;
  {
    KvTenancy tenancy(&engine, &waiting);
    auto work = std::make_unique<Work>();
    work->tokens = {1, 2, 3};
    work->prompt_tokens = 3;
    Work& begun = *work;
    tenancy.Begin(std::move(work), 0);
    const std::vector<BatchToken> batch = {{1, begun.sequence, false}};
    ASSERT_TRUE(engine.Decode(batch, [](int64_t, std::span<const float>) {}).ok());
    begun.computed = 1;
    tenancy.End(begun, true, 0);
    EXPECT_EQ(engine.n_sequences(), 1u);
  }
  EXPECT_EQ(engine.n_sequences(), 0u);
}

}  // namespace
}  // namespace espalier
