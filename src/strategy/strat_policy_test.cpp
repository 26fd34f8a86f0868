#include "strategy/strat_policy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "strategy/strategy_plans.h"

namespace espalier {
namespace {

constexpr int kLayers = 4;

MemoryModel SomeMemory() {
  MemoryModel memory;
  for (int il = 0; il < kLayers; ++il) {
    memory.block_bytes.push_back(100);
    memory.block_bytes.push_back(300);
  }
  memory.block_staging_bytes.assign(memory.block_bytes.size(), 0);
  memory.global_bytes = 1000;
  memory.kv = {.key_bytes_per_cell = 5, .value_bytes_per_cell = 5, .n_planes = 2, .page_bytes = 1, .capacity = 1 << 20};
  return memory;
}

// Every plan with one or two blocks dropped was measured; a block costs the more the later it is.
Profile SomeProfile() {
  Profile profile;
  profile.model_fingerprint = "f";
  profile.n_layer = kLayers;
  profile.n_embd = 8;
  MeasurementSet set;
  set.corpus = "numbers";
  set.n_windows = 1;
  set.tokens_scored = 10;
  Archive& archive = profile.ArchiveFor(set);
  profile.primary_set = set.Key();
  for (int a = 0; a < 2 * kLayers; ++a) {
    for (int b = a; b < 2 * kLayers; ++b) {
      Plan plan = Plan::Dense(kLayers);
      plan.Drop({a});
      plan.Drop({b});
      double loss = 0;
      for (const BlockId block : plan.dropped()) {
        loss += 0.1 * (1 + block.index);
      }
      const WindowLoss window = {10 * loss, 30};
      archive.Add(plan, 0, {&window, 1});
    }
  }
  return profile;
}

Observation ObservationOf(const MemoryModel& memory, uint64_t limit) {
  Observation observation;
  observation.memory = &memory;
  observation.workload = Workload::Uniform(1, 20);
  observation.limit_bytes = limit;
  return observation;
}

TEST(StratPolicy, FitsWhateverItsNetworkSaysAndTakesTheLeastLoss) {
  Profile profile = SomeProfile();
  const MemoryModel memory = SomeMemory();
  for (uint64_t seed = 1; seed <= 3; ++seed) {  // networks that nobody trained
    const StratNet net(2 * kLayers, seed);
    profile.Put(RecordOf(net, seed, 0, "f"));
    ProfilePolicyOptions options;
    options.seed = seed;
    const auto policy = MakeStratPolicy(profile, options);
    ASSERT_TRUE(policy.ok()) << policy.status().message();
    // Dense: 1000 + 4 * 100 + 4 * 300 + 4 * 20 * 10 = 3400.
    for (uint64_t limit = 1000; limit <= 3400; limit += 150) {
      const Observation observation = ObservationOf(memory, limit);
      const auto decision = (*policy)->Decide(observation);
      ASSERT_TRUE(decision.ok()) << decision.status().message();
      EXPECT_TRUE(Fits(observation, decision->footprint));
      EXPECT_EQ(decision->plan.dense(), limit == 3400);
      // Of what it proposes and was measured, nothing loses less.
      const auto chosen = profile.archives[0].LossOf(decision->plan);
      const auto proposed = PlansThatFit(net, observation, 64);
      ASSERT_TRUE(proposed.ok());
      for (const Decision& other : *proposed) {
        const auto loss = profile.archives[0].LossOf(other.plan);
        if (chosen && loss) {
          EXPECT_LE(*chosen, *loss);
        }
      }
    }
    EXPECT_EQ((*policy)->DropOrder(kLayers).size(), 8u);
    EXPECT_EQ((*policy)->Decide(ObservationOf(memory, 999)).status().code(), ErrorCode::kOutOfBudget);
  }
}

Result<StratNet> NetworkIn(const Profile& profile, uint64_t seed) {
  ESPALIER_ASSIGN_OR_RETURN(const Agent* record, FindStratRecord(profile, seed));
  return StratNetOf(*record, 2 * kLayers);
}

TEST(FindStratRecord, GivesBackWhatWasKept) {
  Profile profile = SomeProfile();
  const StratNet net(2 * kLayers, 5);
  profile.Put(RecordOf(StratNet(2 * kLayers, 4), 4, 10, "f"));
  profile.Put(RecordOf(net, 5, 20, "f"));
  EXPECT_EQ(NetworkIn(profile, 5)->parameters(), net.parameters());
  EXPECT_EQ((*FindStratRecord(profile, std::nullopt))->seed, 4);
  EXPECT_EQ((*FindStratRecord(profile, 5))->episodes, 20);
  // Seeds are networks of their own: none stands in for another.
  EXPECT_EQ(FindStratRecord(profile, 9).status().code(), ErrorCode::kNotFound);
  EXPECT_NE(FindStratRecord(profile, 9).status().message().find("there are: 4, 5"), std::string::npos);
}

TEST(FindStratRecord, SaysWhatIsMissingOrWrong) {
  Profile profile = SomeProfile();
  const auto none = NetworkIn(profile, 1);
  EXPECT_EQ(none.status().code(), ErrorCode::kNotFound);
  EXPECT_NE(none.status().message().find("train stratnet"), std::string::npos);
  profile.Put(RecordOf(StratNet(6, 1), 1, 0, "f"));
  EXPECT_EQ(NetworkIn(profile, 1).status().code(), ErrorCode::kInvalidArgument);
  profile.agents[0].state_version = kStratInputVersion + 1;
  EXPECT_EQ(NetworkIn(profile, 1).status().code(), ErrorCode::kUnsupported);
  profile.agents.clear();
  profile.Put(RecordOf(StratNet(2 * kLayers, 1), 1, 0, "f"));
  profile.archives.clear();
  EXPECT_EQ(MakeStratPolicy(profile).status().code(), ErrorCode::kNotFound) << "nothing to choose by";
}

TEST(Snap, WholeFromAHalfOn) {
  Eigen::VectorXf keep(4);
  keep << 0.5F, 0.49F, 1, 0;
  EXPECT_EQ(Snap(keep).ToText(), "f0=0 f1=0");
  const auto order = DropOrderOf(keep);
  EXPECT_EQ(order, (std::vector<BlockId>{{3}, {1}, {0}, {2}}));
}

}  // namespace
}  // namespace espalier
