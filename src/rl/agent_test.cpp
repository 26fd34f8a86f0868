#include "rl/agent.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <random>

#include "rl/exact.h"
#include "rl/reward.h"
#include "rl/state.h"
#include "rl/task.h"
#include "rl/task_for_test.h"

namespace espalier {
namespace {

using test::RoundMemory;
using test::TaskOf;

Profile ProfileWithScores(int n_layer) {
  Profile profile;
  profile.model_fingerprint = "f";
  profile.n_layer = n_layer;
  profile.n_embd = 8;
  Ranking gsi;
  gsi.method = "gsi";
  for (int b = 0; b < 2 * n_layer; ++b) {
    gsi.drop_order.push_back({b});
    gsi.score.push_back(0.1 * (b + 1));
  }
  profile.Put(std::move(gsi));
  return profile;
}

TEST(RapPolicy, FitsWhateverItsNetworkSays) {
  Profile profile = ProfileWithScores(6);
  const MemoryModel memory = RoundMemory(6);
  std::mt19937_64 random(3);
  for (const StateKind kind : {StateKind::kPaper, StateKind::kShared}) {
    for (uint64_t seed = 1; seed <= 5; ++seed) {  // networks that nobody trained
      profile.Put(RecordOf(*MakeQNetwork(kind, 12, seed), "measured", seed, 0, "f"));
      const auto policy = MakeRapPolicy("rap", profile, seed);
      ASSERT_TRUE(policy.ok()) << policy.status().message();
      for (int i = 0; i < 40; ++i) {
        const Task task = DrawTask(memory, 50, {}, &random);
        const auto decision = (*policy)->Decide(task.observation);
        ASSERT_TRUE(decision.ok()) << decision.status().message();
        EXPECT_TRUE(Fits(task.observation, decision->footprint));
        EXPECT_EQ(FootprintOf(task.observation, decision->plan).peak_bytes(), decision->footprint.peak_bytes());
        // Nothing that it dropped would fit into what it left.
        for (const BlockId block : decision->plan.dropped()) {
          Plan larger = decision->plan;
          larger.Restore(block);
          EXPECT_FALSE(Fits(task.observation, FootprintOf(task.observation, larger)));
        }
      }
    }
  }
}

// Blocks of different bytes, so that they return in another order than they went.
MemoryModel UnevenMemory(int n_layer, std::mt19937_64* random) {
  MemoryModel memory = RoundMemory(n_layer);
  for (size_t b = 0; b < memory.block_bytes.size(); ++b) {
    memory.block_bytes[b] += (*random)() % 5 * 20;
    memory.block_staging_bytes[b] = (*random)() % 4 * 30;
  }
  return memory;
}

// The decision in so many words: the whole state, all of the network and the footprint anew for every step. Empty
// where two actions are worth the same but for rounding.
std::optional<Plan> DecidedStepByStep(const Observation& task, const QNetwork& network,
                                      const std::vector<double>& importance) {
  const BlockMarks marks(importance);
  const StateEncoder encoder(network.kind(), marks, task);
  Plan plan = Plan::Dense(task.n_layer());
  std::vector<BlockId> dropped;
  State state;
  while (!Fits(task, FootprintOf(task, plan))) {
    encoder.Encode(plan, FootprintOf(task, plan), &state);
    const Eigen::VectorXf values = network.Forward(state).col(0);
    BlockId best = {-1};
    float next_best = -1e30F;
    for (int b = 0; b < plan.n_block(); ++b) {
      if (plan.kept({b}) && (best.index < 0 || values[b] > values[best.index])) {
        next_best = best.index < 0 ? next_best : values[best.index];
        best = {b};
      } else if (plan.kept({b})) {
        next_best = std::max(next_best, values[b]);
      }
    }
    if (values[best.index] - next_best < 1e-4F) {
      return std::nullopt;
    }
    plan.Drop(best);
    dropped.insert(dropped.begin(), best);
  }
  const std::vector<double> bytes = BytesByBlock(task);
  std::stable_sort(dropped.begin(), dropped.end(), [&](BlockId a, BlockId b) {
    return bytes[static_cast<size_t>(a.index)] > bytes[static_cast<size_t>(b.index)];
  });
  for (const BlockId block : dropped) {
    plan.Restore(block);
    if (!Fits(task, FootprintOf(task, plan))) {
      plan.Drop(block);
    }
  }
  return plan;
}

TEST(RapPolicy, DecidesWhatItsNetworkSaysStepByStep) {
  std::mt19937_64 random(17);
  for (const StateKind kind : {StateKind::kPaper, StateKind::kShared}) {
    int compared = 0;
    for (uint64_t seed = 1; seed <= 8; ++seed) {
      const int n_layer = static_cast<int>(seed % 3) * 5 + 6;  // values that fill vectors, and that do not
      const MemoryModel memory = UnevenMemory(n_layer, &random);
      std::vector<double> importance;
      for (int b = 0; b < 2 * n_layer; ++b) {
        importance.push_back(static_cast<double>(random() % 1000) / 100);
      }
      const auto network = MakeQNetwork(kind, 2 * n_layer, seed);
      const RapPolicy policy("rap", network->Clone(), importance);
      for (int i = 0; i < 40; ++i) {
        const Task task = DrawTask(memory, 50, {}, &random);
        const auto decision = policy.Decide(task.observation);
        ASSERT_TRUE(decision.ok()) << decision.status().message();
        const auto expected = DecidedStepByStep(task.observation, *network, importance);
        if (expected) {
          EXPECT_EQ(decision->plan, *expected);
          ++compared;
        }
      }
    }
    EXPECT_GT(compared, 200) << StateKindName(kind);
  }
}

TEST(RapPolicy, RefusesABudgetThatNothingMeetsNamingTheLeast) {
  Profile profile = ProfileWithScores(2);
  profile.Put(RecordOf(*MakePaperNetwork(4, 1), "paper", 1, 0, "f"));
  const MemoryModel memory = RoundMemory(2);
  const auto policy = MakeRapPolicy("rap-paper", profile, 1);
  ASSERT_TRUE(policy.ok());
  const auto decision = (*policy)->Decide(TaskOf(memory, 5, 999));
  ASSERT_FALSE(decision.ok());
  EXPECT_EQ(decision.status().code(), ErrorCode::kOutOfBudget);
  EXPECT_NE(decision.status().message().find("1000"), std::string::npos) << decision.status().message();
}

TEST(ExactPaperPolicy, DecidesTheOptimumAndGivesBackWhatFits) {
  const auto policy = MakeRapPolicy("rap-exact", ProfileWithScores(3), 1);
  ASSERT_TRUE(policy.ok()) << policy.status().message();
  const MemoryModel memory = RoundMemory(3);
  const std::vector<double> importance = *ImportanceOf(ProfileWithScores(3));
  std::mt19937_64 random(5);
  for (int i = 0; i < 50; ++i) {
    const Task task = DrawTask(memory, 0, {}, &random);
    const auto decision = (*policy)->Decide(task.observation);
    ASSERT_TRUE(decision.ok()) << decision.status().message();
    EXPECT_TRUE(Fits(task.observation, decision->footprint));
    const auto best = BestAdditiveEpisode(task.observation, BlockValues(task.observation, importance), 0.99);
    for (const BlockId block : decision->plan.dropped()) {
      EXPECT_NE(std::find(best->dropped.begin(), best->dropped.end(), block), best->dropped.end());
      Plan larger = decision->plan;
      larger.Restore(block);
      EXPECT_FALSE(Fits(task.observation, FootprintOf(task.observation, larger)));
    }
  }
  const auto refused = (*policy)->Decide(TaskOf(memory, 5, 999));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), ErrorCode::kOutOfBudget);
}

TEST(FindAgent, PrefersMeasuredAndTheSeed) {
  Profile profile = ProfileWithScores(2);
  const auto none = MakeRapPolicy("rap", profile, 1);
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.status().code(), ErrorCode::kNotFound);
  EXPECT_NE(none.status().message().find("train rap"), std::string::npos);
  profile.Put(RecordOf(*MakePaperNetwork(4, 1), "paper", 1, 10, "f"));
  EXPECT_EQ((*FindAgent(profile, "", 9))->reward, "paper");
  profile.Put(RecordOf(*MakePaperNetwork(4, 2), "measured", 2, 20, "f"));
  profile.Put(RecordOf(*MakePaperNetwork(4, 3), "measured", 3, 30, "f"));
  EXPECT_EQ((*FindAgent(profile, "", 9))->episodes, 20);
  EXPECT_EQ((*FindAgent(profile, "", 3))->episodes, 30);
  EXPECT_EQ((*FindAgent(profile, "paper", 3))->episodes, 10);
}

TEST(NetworkOf, GivesBackWhatWasKept) {
  const auto network = MakeSharedNetwork(7);
  const Agent agent = RecordOf(*network, "measured", 7, 100, "f");
  // The shared network serves models of any depth.
  for (const int n_block : {4, 64}) {
    const auto again = NetworkOf(agent, n_block);
    ASSERT_TRUE(again.ok()) << again.status().message();
    const State state = State::Constant(StateSize(StateKind::kShared, n_block), 0.3F);
    EXPECT_EQ((*again)->Forward(state), network->Forward(state));
  }
}

TEST(NetworkOf, RefusesOtherVersionsAndShapes) {
  Agent agent = RecordOf(*MakePaperNetwork(8, 1), "paper", 1, 0, "f");
  const auto other_model = NetworkOf(agent, 12);
  ASSERT_FALSE(other_model.ok());
  EXPECT_EQ(other_model.status().code(), ErrorCode::kInvalidArgument);
  EXPECT_NE(other_model.status().message().find("12 blocks"), std::string::npos) << other_model.status().message();
  agent.state_version = kStateVersion + 1;
  const auto newer = NetworkOf(agent, 8);
  ASSERT_FALSE(newer.ok());
  EXPECT_EQ(newer.status().code(), ErrorCode::kUnsupported);
  EXPECT_NE(newer.status().message().find("version 2"), std::string::npos) << newer.status().message();
  agent = RecordOf(*MakePaperNetwork(8, 1), "paper", 1, 0, "f");
  agent.network = "transformer";
  EXPECT_FALSE(NetworkOf(agent, 8).ok());
}

}  // namespace
}  // namespace espalier
