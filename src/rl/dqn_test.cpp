#include "rl/dqn.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "rl/environment.h"
#include "rl/exact.h"
#include "rl/task.h"
#include "rl/task_for_test.h"

namespace espalier {
namespace {

using Eigen::Index;
using Eigen::MatrixXf;
using Eigen::VectorXf;
using test::RoundMemory;
using test::TaskOf;

// Values that are given, whatever the state.
class ConstantNetwork final : public QNetwork {
 public:
  explicit ConstantNetwork(VectorXf values) { parameters_ = std::move(values); }
  StateKind kind() const override { return StateKind::kPaper; }
  Index n_parameter() const override { return parameters_.size(); }
  std::unique_ptr<QNetwork> Clone() const override { return std::make_unique<ConstantNetwork>(*this); }

 protected:
  MatrixXf Run(const MatrixXf& states, const Derivative&, VectorXf*) const override {
    return parameters_.replicate(1, states.cols());
  }
};

TEST(MaskedArgmax, LooksAtAllowedActionsAlone) {
  const VectorXf values = (VectorXf(4) << 3, 9, 5, 5).finished();
  EXPECT_EQ(MaskedArgmax(values, {1, 1, 1, 1}), 1);
  EXPECT_EQ(MaskedArgmax(values, {1, 0, 1, 1}), 2);  // the first of equal ones
  EXPECT_EQ(MaskedArgmax(values, {1, 0, 0, 0}), 0);
}

TEST(ReplayBuffer, TheNewestTakesTheOldestsPlace) {
  ReplayBuffer buffer(3);
  for (int i = 0; i < 5; ++i) {
    Experience experience;
    experience.action = i;
    buffer.Add(std::move(experience));
    ASSERT_EQ(buffer.size(), static_cast<size_t>(std::min(i + 1, 3)));
  }
  EXPECT_EQ(buffer.at(0).action, 2);
  EXPECT_EQ(buffer.at(1).action, 3);
  EXPECT_EQ(buffer.at(2).action, 4);
  std::mt19937_64 random(1);
  int drawn[5] = {};
  for (const Experience* experience : buffer.Sample(300, &random)) {
    ++drawn[experience->action];
  }
  EXPECT_EQ(drawn[0] + drawn[1], 0);
  EXPECT_GT(std::min({drawn[2], drawn[3], drawn[4]}), 50);
}

TEST(TdTargets, AreThoseComputedByHand) {
  const ConstantNetwork online((VectorXf(3) << 1, 2, 7).finished());
  const ConstantNetwork target((VectorXf(3) << 10, 4, 100).finished());
  Experience going_on;
  going_on.state = going_on.next = VectorXf::Zero(2);
  going_on.reward = 0.5;
  going_on.next_mask = {1, 1, 0};
  Experience last = going_on;
  last.terminated = true;
  const Experience* const batch[] = {&going_on, &last};
  // The target's own best allowed action is 0 (10); the online network prefers 1, which the target values 4.
  const VectorXf plain = TdTargets(batch, online, target, 0.9, false);
  EXPECT_FLOAT_EQ(plain[0], 0.5F + 0.9F * 10);
  EXPECT_FLOAT_EQ(plain[1], 0.5F);
  const VectorXf twice = TdTargets(batch, online, target, 0.9, true);
  EXPECT_FLOAT_EQ(twice[0], 0.5F + 0.9F * 4);
  EXPECT_FLOAT_EQ(twice[1], 0.5F);
}

TEST(QNetwork, GradientsAreThoseOfFiniteDifferences) {
  constexpr int kBlocks = 6;
  for (const StateKind kind : {StateKind::kPaper, StateKind::kShared}) {
    const auto network = MakeQNetwork(kind, kBlocks, 3);
    std::mt19937 random(5);
    const auto noise = [&random] { return static_cast<float>(random() % 2001) / 1000 - 1; };
    MatrixXf states = MatrixXf::NullaryExpr(StateSize(kind, kBlocks), 6, noise);
    const MatrixXf weights = MatrixXf::NullaryExpr(kBlocks + 1, 6, noise);
    VectorXf gradient = VectorXf::Zero(network->n_parameter());
    network->ForwardBackward(
        states, [&](Index first, const MatrixXf& part) { return MatrixXf(weights.middleCols(first, part.cols())); },
        &gradient);
    const auto loss = [&] { return network->Forward(states).cwiseProduct(weights).cast<double>().sum(); };
    const VectorXf parameters = network->parameters();
    int kinks = 0;
    for (int probe = 0; probe < 200; ++probe) {
      const auto i = static_cast<Index>(random() % static_cast<uint64_t>(parameters.size()));
      constexpr float kStep = 1e-3F;
      VectorXf moved = parameters;
      moved[i] = parameters[i] + kStep;
      network->set_parameters(moved);
      const double above = loss();
      moved[i] = parameters[i] - kStep;
      network->set_parameters(moved);
      const double below = loss();
      network->set_parameters(parameters);
      const double slope = (above - below) / (2 * kStep);
      // A ReLU that turns on or off within the step makes the difference something else.
      kinks += std::abs(slope - gradient[i]) > 2e-3 + 0.02 * std::abs(slope) ? 1 : 0;
    }
    EXPECT_LE(kinks, 6) << StateKindName(kind);
  }
}

TEST(QNetwork, FollowsAnEpisodeAsIfEveryStateWereTheFirst) {
  constexpr int kLayers = 9;
  const MemoryModel memory = RoundMemory(kLayers);
  const std::vector<double> importance = {5, 1, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6};
  std::mt19937_64 random(29);
  for (const StateKind kind : {StateKind::kPaper, StateKind::kShared}) {
    const auto network = MakeQNetwork(kind, 2 * kLayers, 3);
    PaperReward reward(importance);
    PruningEnvironment environment({.state = kind}, importance, &reward);
    for (int episode = 0; episode < 20; ++episode) {
      const Task task = DrawTask(memory, 0, {}, &random);
      EnvironmentStep step = environment.Reset(task.observation);
      QNetwork::LastState last;
      while (!step.terminated) {
        const Index n_action = episode % 2 == 0 ? environment.stop_action() : environment.n_action();
        const VectorXf expected = network->Forward(environment.state()).col(0).head(n_action);
        const VectorXf& values = network->Follow(environment.state(), n_action, &last);
        ASSERT_EQ(values.size(), expected.size());
        ASSERT_LT((values - expected).cwiseAbs().maxCoeff(), 1e-5F * (1 + expected.cwiseAbs().maxCoeff()))
            << StateKindName(kind) << " after " << environment.dropped().size() << " blocks";
        int action = 0;
        do {
          action = static_cast<int>(random() % (2 * kLayers));
        } while (environment.mask()[static_cast<size_t>(action)] == 0);
        step = *environment.Step(action);
      }
    }
  }
}

TEST(QNetwork, SizesAreThoseOfThePaperAndOfNoModel) {
  EXPECT_NEAR(static_cast<double>(MakePaperNetwork(64, 1)->n_parameter()), 18000, 1500);
  const auto shared = MakeSharedNetwork(1);
  EXPECT_EQ(shared->Forward(VectorXf::Zero(StateSize(StateKind::kShared, 12))).rows(), 13);
  EXPECT_EQ(shared->Forward(VectorXf::Zero(StateSize(StateKind::kShared, 32))).rows(), 33);
}

// Plays `learner` on `task` without exploring; the discounted return.
double Play(DqnLearner* learner, PruningEnvironment* environment, const Observation& task, double gamma) {
  EnvironmentStep step = environment->Reset(task);
  double value = 0;
  for (double weight = 1; !step.terminated; weight *= gamma) {
    step = *environment->Step(learner->Act(environment->state(), environment->mask(), 0));
    value += weight * step.reward;
  }
  return value;
}

// An agent on three layers and two tasks, small enough that the best return is known.
std::pair<double, VectorXf> ReturnAfterTraining(uint64_t seed, int episodes) {
  const MemoryModel memory = RoundMemory(3);
  const std::vector<double> importance = {0.1, 0.9, 0.7, 0.2, 0.5, 0.3};
  PaperReward reward(importance);
  PruningEnvironment environment({}, importance, &reward);
  DqnOptions options;
  options.seed = seed;
  options.warm_up = 64;
  DqnLearner learner(MakePaperNetwork(6, seed), options);
  const Observation tasks[] = {TaskOf(memory, 5, 1700), TaskOf(memory, 80, 3300)};
  for (int episode = 0; episode < episodes; ++episode) {
    EnvironmentStep step = environment.Reset(tasks[episode % 2]);
    while (!step.terminated) {
      Experience experience;
      experience.state = environment.state();
      experience.action =
          learner.Act(environment.state(), environment.mask(), std::max(0.1, 1 - episode / (0.7 * episodes)));
      step = *environment.Step(experience.action);
      experience.reward = step.reward;
      experience.next = environment.state();
      experience.next_mask = environment.mask();
      experience.terminated = step.terminated;
      learner.Remember(std::move(experience));
      learner.Learn();
    }
  }
  double ratio = 0;
  for (const Observation& task : tasks) {
    const auto best = BestAdditiveEpisode(task, BlockValues(task, importance), options.gamma);
    ratio += Play(&learner, &environment, task, options.gamma) / best->value / 2;
  }
  return {ratio, learner.online().parameters()};
}

TEST(Dqn, ReachesTheOptimumOfASmallModel) {
  const auto [ratio, parameters] = ReturnAfterTraining(1, 800);
  EXPECT_GT(ratio, 0.98);
  EXPECT_LE(ratio, 1 + 1e-9);
}

TEST(Dqn, TheSameSeedTheSameAgent) {
  const auto first = ReturnAfterTraining(4, 60);
  const auto again = ReturnAfterTraining(4, 60);
  const auto other = ReturnAfterTraining(5, 60);
  EXPECT_EQ(first.second, again.second);
  EXPECT_NE(first.second, other.second);
}

TEST(Environment, BytesAreThoseOfTheFootprintAndMasksFollow) {
  const MemoryModel memory = RoundMemory(3);
  const std::vector<double> importance(6, 1.0);
  PaperReward reward(importance);
  PruningEnvironment environment({}, importance, &reward);
  const Observation task = TaskOf(memory, 10, 1500);
  EnvironmentStep step = environment.Reset(task);
  EXPECT_FALSE(step.terminated);
  EXPECT_EQ(environment.state().size(), 6 + 4);
  EXPECT_EQ(environment.mask(), (ActionMask{1, 1, 1, 1, 1, 1, 0}));
  EXPECT_EQ(environment.footprint().peak_bytes(), 1000 + 3 * 100 + 3 * 300 + 3 * 10 * 10);
  step = *environment.Step(3);
  EXPECT_EQ(environment.mask(), (ActionMask{1, 1, 1, 0, 1, 1, 0}));
  EXPECT_EQ(environment.state()[2 + 3], 0);  // dropped: no importance
  EXPECT_EQ(environment.state()[2 + 2], 1);
  EXPECT_EQ(environment.footprint().peak_bytes(), 2500 - 300);
  EXPECT_FALSE(step.terminated);
  step = *environment.Step(1);
  step = *environment.Step(5);
  EXPECT_FALSE(step.terminated);
  step = *environment.Step(0);
  EXPECT_TRUE(step.terminated) << environment.footprint().peak_bytes();
  EXPECT_TRUE(environment.fits());
}

TEST(Environment, MayGoOnUntilItStops) {
  const MemoryModel memory = RoundMemory(2);
  const std::vector<double> importance(4, 1.0);
  PaperReward reward(importance);
  PruningEnvironment environment({.ends_when_it_fits = false}, importance, &reward);
  EnvironmentStep step = environment.Reset(TaskOf(memory, 1, 1600));
  EXPECT_EQ(environment.mask().back(), 0);
  step = *environment.Step(1);
  EXPECT_FALSE(step.terminated);
  EXPECT_EQ(environment.mask().back(), 1);
  step = *environment.Step(environment.stop_action());
  EXPECT_TRUE(step.terminated);
  EXPECT_EQ(environment.dropped().size(), 1);
}

TEST(DrawTask, CoversTheRangeAndCanAlwaysBeMet) {
  const MemoryModel memory = RoundMemory(4);
  std::mt19937_64 random(3);
  const Plan nothing = Plan::Nothing(4);
  double least = 100;
  double most = 0;
  for (int i = 0; i < 500; ++i) {
    const Task drawn = DrawTask(memory, 77, {}, &random);
    const Observation& task = drawn.observation;
    EXPECT_TRUE(Fits(task, FootprintOf(task, nothing)));
    const double ratio = 40.0 * static_cast<double>(task.workload.kv_cells) / 2600;
    least = std::min(least, ratio);
    most = std::max(most, ratio);
    EXPECT_LT(task.limit_bytes, 77 + FootprintOf(task, Plan::Dense(4)).peak_bytes());
  }
  EXPECT_LT(least, 0.08);
  EXPECT_GT(most, 3);
}

}  // namespace
}  // namespace espalier
