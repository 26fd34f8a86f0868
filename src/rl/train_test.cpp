#include "rl/train.h"

#include <gtest/gtest.h>

#include <vector>

#include "rl/task_for_test.h"

namespace espalier {
namespace {

TrainingOptions Few(int64_t episodes) {
  TrainingOptions options = DefaultTraining(StateKind::kPaper, false);
  options.episodes = episodes;
  options.dqn.warm_up = 20;
  return options;
}

class TrainAgentTest : public testing::Test {
 protected:
  Result<std::unique_ptr<QNetwork>> Train(const TrainingOptions& options) {
    return TrainAgent({&memory_, importance_}, &reward_, options);
  }

  const MemoryModel memory_ = test::RoundMemory(3);
  const std::vector<double> importance_ = {1, 2, 3, 4, 5, 6};
  PaperReward reward_{importance_};
};

TEST_F(TrainAgentTest, KeepsTheBestOfTheStatesThatAreJudged) {
  TrainingOptions options = Few(200);
  std::vector<Eigen::VectorXf> judged;
  // The fourth is the best; a later one that is as good does not take its place.
  const std::vector<double> gaps = {0.5, 0.4, 0.3, 0.1, 0.2, 0.1};
  options.gap = [&](const QNetwork& agent) -> Result<double> {
    judged.push_back(agent.parameters());
    return judged.size() <= gaps.size() ? gaps[judged.size() - 1] : 0.6;
  };
  const auto agent = Train(options);
  ASSERT_TRUE(agent.ok()) << agent.status().message();
  EXPECT_EQ(judged.size(), 2 * 50) << "every 100th, in the second half: agent and target";
  EXPECT_EQ((*agent)->parameters(), judged[3]);
  EXPECT_NE(judged[3], judged[5]);
  // Without judging it is the last one, which judging does not change.
  options.gap = nullptr;
  const auto last = Train(options);
  ASSERT_TRUE(last.ok());
  EXPECT_EQ((*last)->parameters(), judged[judged.size() - 2]);
  // The target alone is left out where it is not asked for.
  const size_t both = judged.size();
  options.judges_target = false;
  options.gap = [&](const QNetwork& state) -> Result<double> {
    judged.push_back(state.parameters());
    return 0.5;
  };
  ASSERT_TRUE(Train(options).ok());
  EXPECT_EQ(judged.size(), both + 50);
  EXPECT_EQ(judged.back(), (*last)->parameters());
}

TEST_F(TrainAgentTest, FailsAsJudgingFails) {
  TrainingOptions options = Few(40);
  options.gap = [](const QNetwork&) -> Result<double> { return NotFound("no plan"); };
  EXPECT_EQ(Train(options).status().code(), ErrorCode::kNotFound);
}

TEST_F(TrainAgentTest, StopsWhenItIsTold) {
  const std::atomic<bool> stop = true;
  const auto agent = TrainAgent({&memory_, importance_}, &reward_, Few(40), nullptr, &stop);
  EXPECT_EQ(agent.status().code(), ErrorCode::kAborted);
}

}  // namespace
}  // namespace espalier
