#include "control/controller.h"

#include <gtest/gtest.h>

#include "control/fakes_for_test.h"
#include "policy/data_free.h"
#include "policy/profile_policies.h"

namespace espalier {
namespace {

constexpr int kLayers = 6;
constexpr uint64_t kProcess = 100'000;
constexpr uint64_t kDense = FakeEngine::kGlobalBytes + kLayers * (FakeEngine::kAttentionBytes + FakeEngine::kFfnBytes);

class ControllerTest : public testing::Test {
 protected:
  ControllerOptions Options(int loads_per_step = 1) const {
    return {.workload = Workload::Uniform(1, 100),
            .process_bytes = kProcess,
            .limit_bytes = kProcess + 10 * kDense,
            .loads_per_step = loads_per_step};
  }

  DataFreePolicy policy_;
  FakeEngine engine_{kLayers, 100};
};

TEST_F(ControllerTest, ALowerLimitIsMetWhenSetLimitReturns) {
  Controller controller(engine_, policy_, Options());
  const uint64_t limit = kProcess + kDense - 9000;
  const auto event = controller.SetLimit(limit);
  ASSERT_TRUE(event.ok()) << event.status().message();
  EXPECT_LE(engine_.memory_in_use().total() + kProcess, limit);
  EXPECT_GT(event->moved.n_released, 0);
  EXPECT_EQ(event->moved.n_loaded, 0);
  EXPECT_FALSE(controller.loading());
  EXPECT_EQ(event->plan_before, Plan::Dense(kLayers));
  EXPECT_EQ(event->plan_after, engine_.plan());
  EXPECT_EQ(event->before.managed.total(), kDense);
  EXPECT_EQ(event->predicted_bytes_before, kDense);
  EXPECT_EQ(event->after.managed.total(), event->predicted_bytes_after);
  EXPECT_EQ(controller.limit_bytes(), limit);
}

TEST_F(ControllerTest, AHigherLimitBringsBlocksBackOneByOneTheMostNeededFirst) {
  Controller controller(engine_, policy_, Options());
  ASSERT_TRUE(controller.SetLimit(kProcess + FakeEngine::kGlobalBytes).ok());
  EXPECT_EQ(engine_.plan().dropped().size(), 2u * kLayers);
  const size_t applied = engine_.applied.size();
  const auto raised = controller.SetLimit(kProcess + 2 * kDense);
  ASSERT_TRUE(raised.ok());
  EXPECT_EQ(engine_.applied.size(), applied) << "nothing changes, so cached graphs must stay";
  EXPECT_EQ(controller.pending().size(), 2u * kLayers);
  EXPECT_EQ(controller.pending().front(), BlockId::Ffn(0));
  for (int i = 0; i < 2 * kLayers; ++i) {
    ASSERT_TRUE(controller.loading());
    const BlockId next = controller.pending().front();
    const auto event = controller.Load();
    ASSERT_TRUE(event.ok());
    EXPECT_EQ(event->moved.n_loaded, 1);
    EXPECT_TRUE(engine_.plan().kept(next));
  }
  EXPECT_FALSE(controller.loading());
  EXPECT_TRUE(engine_.plan().dense());
}

TEST_F(ControllerTest, EventsTellThePredictedLossOfWhatWasDecided) {
  Controller unknown(engine_, policy_, Options());
  EXPECT_FALSE(unknown.SetLimit(kProcess + kDense - 9000)->loss) << "data-free knows of none";

  // Knows the loss of the plan that drops everything, and of the dense one.
  Profile profile;
  profile.n_layer = kLayers;
  MeasurementSet set;
  set.n_windows = 1;
  set.tokens_scored = 4;
  const WindowLoss window[] = {{10, 10}};
  ASSERT_TRUE(profile.ArchiveFor(set).Add(Plan::Nothing(kLayers), 0, window));
  profile.primary_set = set.Key();
  const auto policy = WithPredictedLoss(std::make_unique<DataFreePolicy>(), profile);
  ASSERT_TRUE(policy.ok());
  Controller controller(engine_, **policy, Options(kLayers));
  const auto least = controller.SetLimit(kProcess + FakeEngine::kGlobalBytes);
  ASSERT_TRUE(least.ok() && least->loss);
  EXPECT_EQ(least->loss->nats, 2.5);
  EXPECT_TRUE(least->loss->measured);
  EXPECT_EQ(controller.SetLimit(kProcess + 2 * kDense)->loss->nats, 0) << "of the plan that is on its way";
  EXPECT_EQ(controller.Load()->loss->nats, 0);
  EXPECT_EQ(controller.Load()->loss->nats, 0);
}

TEST_F(ControllerTest, LoadsPerStepBoundsAHelping) {
  Controller controller(engine_, policy_, Options(5));
  ASSERT_TRUE(controller.SetLimit(kProcess + FakeEngine::kGlobalBytes).ok());
  ASSERT_TRUE(controller.SetLimit(kProcess + 2 * kDense).ok());
  std::vector<int> helpings;
  while (controller.loading()) {
    helpings.push_back(controller.Load()->moved.n_loaded);
  }
  EXPECT_EQ(helpings, (std::vector<int>{5, 5, 2}));
}

TEST_F(ControllerTest, ALimitThatFallsWhileBlocksReturnKeepsWhatItMay) {
  Controller controller(engine_, policy_, Options());
  ASSERT_TRUE(controller.SetLimit(kProcess + FakeEngine::kGlobalBytes).ok());
  ASSERT_TRUE(controller.SetLimit(kProcess + 2 * kDense).ok());
  ASSERT_TRUE(controller.Load().ok());  // f0
  ASSERT_TRUE(controller.Load().ok());  // a0
  const uint64_t limit = kProcess + FakeEngine::kGlobalBytes + FakeEngine::kFfnBytes;
  const auto event = controller.SetLimit(limit);
  ASSERT_TRUE(event.ok());
  EXPECT_EQ(event->moved.n_released, 1);
  EXPECT_TRUE(engine_.plan().kept(BlockId::Ffn(0)));
  EXPECT_LE(kProcess + engine_.memory_in_use().total(), limit);
  EXPECT_FALSE(controller.loading());
}

TEST_F(ControllerTest, ALimitThatCannotBeMetChangesNothing) {
  Controller controller(engine_, policy_, Options());
  const auto refused = controller.SetLimit(kProcess);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), ErrorCode::kOutOfBudget);
  EXPECT_TRUE(engine_.applied.empty());
  EXPECT_EQ(controller.limit_bytes(), Options().limit_bytes);
}

TEST_F(ControllerTest, AFailedLoadIsReportedAndStillToCome) {
  Controller controller(engine_, policy_, Options());
  ASSERT_TRUE(controller.SetLimit(kProcess + FakeEngine::kGlobalBytes).ok());
  ASSERT_TRUE(controller.SetLimit(kProcess + 2 * kDense).ok());
  engine_.fail_next_apply = true;
  const std::vector<BlockId> pending = controller.pending();
  EXPECT_EQ(controller.Load().status().code(), ErrorCode::kIo);
  EXPECT_EQ(controller.pending(), pending);
  engine_.fail_next_apply = false;
  while (controller.loading()) {
    ASSERT_TRUE(controller.Load().ok());
  }
  EXPECT_TRUE(engine_.plan().dense());
}

TEST_F(ControllerTest, ALargerWorkloadTakesBlocksUnderTheSameLimit) {
  Controller controller(engine_, policy_, Options());
  const uint64_t limit = kProcess + kDense + kLayers * 2 * 20;  // room for 20 cells
  const auto fits = controller.Retarget(limit, Workload::Uniform(1, 20));
  ASSERT_TRUE(fits.ok());
  EXPECT_FALSE(fits->has_value()) << "no block leaves, so there is nothing to tell";
  EXPECT_TRUE(engine_.applied.empty());
  EXPECT_EQ(controller.limit_bytes(), limit);
  EXPECT_EQ(controller.workload(), Workload::Uniform(1, 20));

  const Workload larger = Workload::Uniform(2, 30);
  const auto event = controller.Retarget(limit, larger);
  ASSERT_TRUE(event.ok() && event->has_value());
  EXPECT_EQ((*event)->reason, TransitionEvent::Reason::kWorkload);
  EXPECT_GT((*event)->moved.n_released, 0);
  EXPECT_LE(kProcess + PredictFootprint(engine_.memory_model(), engine_.plan(), larger).peak_bytes(), limit);

  const auto back = controller.Retarget(limit, Workload::Uniform(1, 20));
  ASSERT_TRUE(back.ok());
  EXPECT_FALSE(back->has_value()) << "Load tells of it";
  ASSERT_TRUE(controller.loading());
  while (controller.loading()) {
    ASSERT_TRUE(controller.Load().ok());
  }
  EXPECT_TRUE(engine_.plan().dense());
}

TEST_F(ControllerTest, ANewLimitIsTheReasonWhateverTheWorkload) {
  Controller controller(engine_, policy_, Options());
  const auto event = controller.Retarget(kProcess + kDense - 9000, Workload::Uniform(1, 20));
  ASSERT_TRUE(event.ok() && event->has_value());
  EXPECT_EQ((*event)->reason, TransitionEvent::Reason::kBudget);
  EXPECT_EQ((*event)->limit_bytes, kProcess + kDense - 9000);
}

TEST_F(ControllerTest, AskingWhatWouldBeDecidedChangesNothing) {
  Controller controller(engine_, policy_, Options());
  const uint64_t limit = kProcess + kDense - 9000;
  const auto decision = controller.Decide(limit, Workload::Uniform(1, 20));
  ASSERT_TRUE(decision.ok());
  EXPECT_TRUE(engine_.applied.empty());
  EXPECT_EQ(controller.limit_bytes(), Options().limit_bytes);
  EXPECT_EQ(controller.workload(), Options().workload);
  ASSERT_TRUE(controller.Retarget(limit, Workload::Uniform(1, 20)).ok());
  EXPECT_EQ(engine_.plan(), decision->plan) << "and it is what is done";
  EXPECT_EQ(controller.Decide(kProcess, Workload::Uniform(1, 1)).status().code(), ErrorCode::kOutOfBudget);
}

TEST_F(ControllerTest, ARetargetThatCannotBeMetChangesNothing) {
  Controller controller(engine_, policy_, Options());
  EXPECT_EQ(controller.Retarget(kProcess, Workload::Uniform(1, 20)).status().code(), ErrorCode::kOutOfBudget);
  EXPECT_TRUE(engine_.applied.empty());
  EXPECT_EQ(controller.limit_bytes(), Options().limit_bytes);
  EXPECT_EQ(controller.workload(), Options().workload);
}

TEST_F(ControllerTest, EverythingCanBeDroppedWhateverThePolicySays) {
  Controller controller(engine_, policy_, Options());
  ASSERT_TRUE(controller.SetLimit(kProcess + kDense - 9000).ok());
  ASSERT_TRUE(controller.SetLimit(kProcess + 2 * kDense).ok());
  ASSERT_TRUE(controller.loading());
  const auto event = controller.DropEverything(1);
  ASSERT_TRUE(event.ok() && event->has_value());
  EXPECT_TRUE(engine_.plan().keeps_nothing());
  EXPECT_FALSE(controller.loading());
  EXPECT_FALSE(controller.loss());
  EXPECT_EQ(controller.limit_bytes(), 1u);
  EXPECT_EQ((*event)->after.managed.total(), FakeEngine::kGlobalBytes);
  const auto again = controller.DropEverything(1);
  ASSERT_TRUE(again.ok());
  EXPECT_FALSE(again->has_value());
  ASSERT_TRUE(controller.SetLimit(kProcess + 2 * kDense).ok());
  EXPECT_EQ(controller.pending().size(), 2u * kLayers) << "and all of it comes back";
}

}  // namespace
}  // namespace espalier
