#include "control/rap_training.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "control/fake_comparison_for_test.h"
#include "importance/gsi.h"
#include "rl/task_for_test.h"

namespace espalier {
namespace {

constexpr int kLayers = 3;

class RapTrainingTest : public testing::Test {
 protected:
  RapTrainingTest() {
    profile_.model_fingerprint = "f";
    profile_.n_layer = kLayers;
    profile_.n_embd = 32;
    auto gsi = RankByGsi(&evaluator_);
    EXPECT_TRUE(gsi.ok());
    profile_.Put(std::move(gsi->ranking));
    options_.training = DefaultTraining(StateKind::kPaper, true);
    options_.training.episodes = 100;
    options_.rounds = 2;
    options_.judged_tasks = 30;
  }

  Result<RapTrainingReport> Train(const std::function<void(const RapTrainingNews&)>& news = {}) {
    return TrainRap(memory_, options_, &profile_, &evaluator_, &stop_, news);
  }

  const MemoryModel memory_ = test::RoundMemory(kLayers);
  FunctionEvaluator evaluator_{kLayers, 1, Additive({{0.1, 0.25, 0.4, 0.8, 0.3, 0.2}})};
  Profile profile_;
  RapTrainingOptions options_;
  std::atomic<bool> stop_ = false;
};

TEST_F(RapTrainingTest, GoesOnWithWhatIsLeftOfAnInterruptedTraining) {
  int kept = 0;
  options_.keep = [&] {
    ++kept;
    return Status::Ok();
  };
  // In the second round, after 100 + 35 episodes.
  int64_t told = 0;
  const auto interrupted = Train([&](const RapTrainingNews& news) {
    told += news.phase == "episodes" ? 1 : 0;
    stop_ = told >= 135;
  });
  ASSERT_EQ(interrupted.status().code(), ErrorCode::kAborted);
  ASSERT_EQ(profile_.agents.size(), 1u);
  EXPECT_EQ(profile_.agents[0].episodes, 135);
  EXPECT_EQ(profile_.agents[0].planned, 200);
  EXPECT_EQ(kept, 9 + 1 + 3 + 1) << "after tenths of both rounds, after the first, and when stopped";

  stop_ = false;
  const auto rest = Train();
  ASSERT_TRUE(rest.ok()) << rest.status().message();
  EXPECT_EQ(rest->curve.front().episodes, 136);
  EXPECT_EQ(rest->curve.back().episodes, 200);
  EXPECT_EQ(rest->gaps.size(), 1u);
  EXPECT_EQ(profile_.agents[0].episodes, 200);
  EXPECT_EQ(profile_.agents[0].planned, 200);

  // That was all of it: the same once more is further training.
  const auto further = Train();
  ASSERT_TRUE(further.ok());
  EXPECT_EQ(further->curve.front().episodes, 201);
  EXPECT_EQ(profile_.agents[0].episodes, profile_.agents[0].planned);
}

TEST_F(RapTrainingTest, MeasuresBeforeTheRoundThatItGoesOnWith) {
  options_.minutes = 1e-9;  // up after the first round
  const auto first = Train();
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(first->gaps.size(), 1u);
  EXPECT_EQ(first->plans_measured, 0);
  EXPECT_EQ(profile_.agents[0].planned, 200);
  options_.minutes = 0;
  const auto second = Train();
  ASSERT_TRUE(second.ok());
  EXPECT_GT(second->plans_measured, 0);
  EXPECT_LE(profile_.agents[0].episodes, 200);
  EXPECT_EQ(profile_.agents[0].episodes, profile_.agents[0].planned);
}

TEST_F(RapTrainingTest, AnAgentThatIsNamedTakesThePlaceOfOneThatIsFinished) {
  ASSERT_TRUE(Train().ok());
  Agent named = profile_.agents.at(0);
  named.trained_on = "another model";
  for (float& parameter : named.parameters) {
    parameter *= 0.5F;
  }
  options_.initial = named;
  options_.training.episodes = 0;
  ASSERT_TRUE(Train().ok());
  ASSERT_EQ(profile_.agents.size(), 1u);
  EXPECT_EQ(profile_.agents[0].parameters, named.parameters);
  EXPECT_EQ(profile_.agents[0].trained_on, "another model");
  // An interrupted training goes on with its own.
  profile_.agents[0].planned = profile_.agents[0].episodes + 50;
  std::fill(named.parameters.begin(), named.parameters.end(), 0.0F);
  options_.initial = named;
  options_.training.episodes = 100;
  options_.rounds = 1;
  ASSERT_TRUE(Train().ok());
  const std::vector<float>& left = profile_.agents[0].parameters;
  EXPECT_TRUE(std::any_of(left.begin(), left.end(), [](float parameter) { return std::abs(parameter) > 0.05F; }));
}

TEST_F(RapTrainingTest, FailsAsKeepingFails) {
  options_.keep = [] { return IoError("disk full"); };
  EXPECT_EQ(Train().status().code(), ErrorCode::kIo);
}

TEST_F(RapTrainingTest, NamesWhatIsMissing) {
  profile_.rankings.clear();
  const auto nothing_to_see = Train();
  EXPECT_EQ(nothing_to_see.status().code(), ErrorCode::kNotFound);
  EXPECT_NE(nothing_to_see.status().message().find("gsi"), std::string::npos);
}

}  // namespace
}  // namespace espalier
