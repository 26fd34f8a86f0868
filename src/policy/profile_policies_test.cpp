#include "policy/profile_policies.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <thread>

#include "base/hash.h"
#include "policy/data_free.h"
#include "policy/loss_table.h"
#include "policy/static_plan.h"

namespace espalier {
namespace {

constexpr uint64_t kProcess = 5'000'000;

MemoryModel TestModel(int n_layer) {
  MemoryModel model;
  for (int il = 0; il < n_layer; ++il) {
    model.block_bytes.push_back(100'000 + static_cast<uint64_t>(il % 3) * 8192);
    model.block_bytes.push_back(250'000 + static_cast<uint64_t>(il % 2) * 4096);
  }
  for (size_t i = 0; i < model.block_bytes.size(); ++i) {
    model.block_staging_bytes.push_back(i % 3 == 0 ? model.block_bytes[i] / 2 : 0);
  }
  model.global_bytes = 400'000;
  model.global_staging_bytes = 30'000;
  model.compute_bytes = 60'000;
  model.work_bytes = 7'000;
  model.host_bytes = 900;
  model.kv = {
      .key_bytes_per_cell = 256, .value_bytes_per_cell = 256, .n_planes = 4, .page_bytes = 4096, .capacity = 4096};
  return model;
}

Observation Observe(const MemoryModel& model, int64_t tokens, uint64_t limit = UINT64_MAX) {
  return {.memory = &model, .workload = Workload::Uniform(1, tokens), .limit_bytes = limit, .process_bytes = kProcess};
}

Plan PlanOfBits(int n_layer, uint64_t kept) {
  Plan plan = Plan::Dense(n_layer);
  for (int i = 0; i < 2 * n_layer; ++i) {
    if ((kept >> i) % 2 == 0) {
      plan.Drop({i});
    }
  }
  return plan;
}

uint64_t Total(const Observation& observation, const Plan& plan) {
  return kProcess + FootprintOf(observation, plan).peak_bytes();
}

MeasurementSet TestSet(Ablation ablation = Ablation::kZero) {
  return {.corpus = "books",
          .tokens_hash = std::string(32, 'a'),
          .protocol = "gptq",
          .window_tokens = 512,
          .n_windows = 2,
          .tokens_scored = 1000,
          .key_type = "f16",
          .value_type = "f16",
          .ablation = ablation};
}

// Adds `plan` with a loss of `nats` per token.
void Measure(Archive& archive, const Plan& plan, double nats) {
  const double tokens = static_cast<double>(archive.set().tokens_scored);
  const WindowLoss windows[] = {{0.25 * nats * tokens, 1}, {0.75 * nats * tokens, 1}};
  ASSERT_TRUE(archive.Add(plan, 0, windows));
}

std::vector<BlockId> ShuffledOrder(int n_layer, uint32_t seed) {
  std::vector<BlockId> order;
  for (int i = 0; i < 2 * n_layer; ++i) {
    order.push_back({i});
  }
  std::shuffle(order.begin(), order.end(), std::mt19937(seed));
  return order;
}

// Every ranking there is, and an empty primary archive.
Profile TestProfile(int n_layer) {
  Profile profile;
  profile.n_layer = n_layer;
  uint32_t seed = 1;
  for (const char* method : {"gsi", "one-shot", "shortgpt", "mha-drop", "ffn-skip"}) {
    profile.Put({.method = method, .drop_order = ShuffledOrder(n_layer, seed++), .score = {}});
  }
  for (const int64_t cells : {100, 1000, 10000}) {
    profile.Put({.method = "density", .kv_cells = cells, .drop_order = ShuffledOrder(n_layer, seed++), .score = {}});
  }
  for (const uint64_t order_seed : {1, 2}) {
    profile.Put({.method = "random", .seed = order_seed, .drop_order = ShuffledOrder(n_layer, seed++), .score = {}});
  }
  profile.primary_set = profile.ArchiveFor(TestSet()).set().Key();
  return profile;
}

// Three layers, 64 plans, of which about `share` are measured. Losses grow with what is dropped, but not always.
struct SmallWorld {
  Profile profile = TestProfile(3);
  std::vector<std::pair<Plan, double>> measured = {{Plan::Dense(3), 0.0}};

  explicit SmallWorld(uint32_t seed, double share = 0.4) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> uniform(0, 1);
    Archive& archive = profile.ArchiveFor(TestSet());
    for (uint64_t kept = 0; kept < 64; ++kept) {
      const Plan plan = PlanOfBits(3, kept);
      if (plan.dense() || uniform(random) > share) {
        continue;
      }
      // Eighths, so that ties happen.
      const double loss = std::round(8 * static_cast<double>(plan.dropped().size()) * uniform(random)) / 8;
      Measure(archive, plan, loss);
      measured.push_back({plan, archive.LossOf(plan).value()});
    }
  }
};

std::unique_ptr<Policy> MakeOrFail(std::string_view name, const Profile& profile,
                                   const ProfilePolicyOptions& options = {}) {
  auto policy = MakeProfilePolicy(name, profile, options);
  EXPECT_TRUE(policy.ok()) << policy.status().message();
  return policy.ok() ? std::move(*policy) : nullptr;
}

TEST(TablePolicy, FindsTheTrueOptimumOfEveryArchiveAtEveryLimit) {
  const MemoryModel model = TestModel(3);
  for (uint32_t seed = 0; seed < 50; ++seed) {
    const SmallWorld world(seed);
    const auto policy = MakeOrFail("table", world.profile);
    for (const int64_t tokens : {1, 512, 4096}) {
      std::vector<uint64_t> limits;
      for (uint64_t kept = 0; kept < 64; ++kept) {
        const uint64_t total = Total(Observe(model, tokens), PlanOfBits(3, kept));
        limits.insert(limits.end(), {total - 1, total, total + 1});
      }
      for (const uint64_t limit : limits) {
        const Observation observation = Observe(model, tokens, limit);
        std::optional<double> best;
        for (const auto& [plan, loss] : world.measured) {
          if (Total(observation, plan) <= limit && (!best || loss < *best)) {
            best = loss;
          }
        }
        const auto decision = policy->Decide(observation);
        if (!best) {
          EXPECT_TRUE(!decision.ok() || !decision->loss) << "what was not measured has no loss";
          continue;
        }
        ASSERT_TRUE(decision.ok()) << decision.status().message();
        EXPECT_LE(Total(observation, decision->plan), limit);
        ASSERT_TRUE(decision->loss);
        EXPECT_TRUE(decision->loss->measured);
        EXPECT_EQ(decision->loss->nats, *best);
        const auto chosen = std::find_if(world.measured.begin(), world.measured.end(),
                                         [&](const auto& known) { return known.first == decision->plan; });
        ASSERT_NE(chosen, world.measured.end());
        EXPECT_EQ(chosen->second, *best);
      }
    }
  }
}

TEST(TablePolicy, TiesAreBrokenByThePlanAloneNotByTheOrderOfMeasuring) {
  const MemoryModel model = TestModel(3);
  const std::vector<Plan> equal = {*Plan::ParseDrop("a1,f1", 3), *Plan::ParseDrop("f2", 3), *Plan::ParseDrop("f0", 3)};
  std::vector<Plan> chosen;
  for (const bool backwards : {false, true}) {
    Profile profile = TestProfile(3);
    Archive& archive = profile.ArchiveFor(TestSet());
    for (size_t i = 0; i < equal.size(); ++i) {
      Measure(archive, equal[backwards ? equal.size() - 1 - i : i], 0.5);
    }
    const uint64_t limit = Total(Observe(model, 512), Plan::Dense(3)) - 1;
    chosen.push_back(MakeOrFail("table", profile)->Decide(Observe(model, 512, limit))->plan);
  }
  EXPECT_EQ(chosen[0], chosen[1]);
  EXPECT_EQ(chosen[0].dropped().size(), 1u) << "of equal losses the plan that drops less";
}

TEST(TablePolicy, LooksOnlyAtWholeRowsOfWholeBlocks) {
  const MemoryModel model = TestModel(3);
  Profile profile = TestProfile(3);
  Archive& archive = profile.ArchiveFor(TestSet());
  Measure(archive, *Plan::ParseDrop("f0,f1", 3), 0.9);
  const WindowLoss first[] = {{0.001, 1}};
  ASSERT_TRUE(archive.Add(*Plan::ParseDrop("f0", 3), 0, first));
  Measure(archive, *Plan::Parse("f1=0.5", 3), 0.1);
  Measure(archive, *Plan::ParseDrop("f2", 3), std::numeric_limits<double>::quiet_NaN());
  const uint64_t limit = Total(Observe(model, 512), Plan::Dense(3)) - 1;
  const auto decision = MakeOrFail("table", profile)->Decide(Observe(model, 512, limit));
  ASSERT_TRUE(decision.ok());
  EXPECT_EQ(decision->plan.ToText(), "f0=0 f1=0");
}

TEST(TablePolicy, FallsBackToTheGsiOrderElseToTheDataFreeOne) {
  const MemoryModel model = TestModel(3);
  Profile profile = TestProfile(3);
  Measure(profile.ArchiveFor(TestSet()), *Plan::ParseDrop("f0", 3), 0.1);
  const Observation tight = Observe(model, 512, Total(Observe(model, 512), PlanOfBits(3, 1)));
  const auto with_gsi = MakeOrFail("table", profile)->Decide(tight);
  ASSERT_TRUE(with_gsi.ok());
  EXPECT_EQ(with_gsi->plan, DropUntilItFits(tight, profile.FindRanking("gsi")->drop_order)->plan);
  EXPECT_FALSE(with_gsi->loss);
  EXPECT_EQ(MakeOrFail("table", profile)->DropOrder(3), profile.FindRanking("gsi")->drop_order);
  profile.rankings.clear();
  const auto without = MakeOrFail("table", profile)->Decide(tight);
  ASSERT_TRUE(without.ok());
  EXPECT_EQ(without->plan, DataFreePolicy().Decide(tight)->plan);
  EXPECT_EQ(MakeOrFail("table", profile)->DropOrder(3), DataFreePolicy().DropOrder(3));
}

// Depths on both sides of where the sets of blocks outgrow a word.
class EveryPolicy : public testing::TestWithParam<std::tuple<std::string, int>> {};

TEST_P(EveryPolicy, FitsFromItsMinimumToTheDensePlan) {
  const auto& [name, n_layer] = GetParam();
  const MemoryModel model = TestModel(n_layer);
  Profile profile = TestProfile(n_layer);
  std::mt19937_64 random(7);
  for (int i = 0; i < 200; ++i) {
    Plan plan = Plan::Dense(n_layer);
    for (const BlockId block : ShuffledOrder(n_layer, static_cast<uint32_t>(i))) {
      if (random() % 200 < static_cast<uint64_t>(i)) {
        plan.Drop(block);
      }
    }
    Measure(profile.ArchiveFor(TestSet()), plan, 0.1 * static_cast<double>(plan.dropped().size()));
  }
  const auto policy = MakeOrFail(name, profile);
  EXPECT_EQ(policy->name(), name);
  const auto order = policy->DropOrder(n_layer);
  EXPECT_TRUE(std::is_permutation(order.begin(), order.end(), ShuffledOrder(n_layer, 0).begin()));

  const auto refused = policy->Decide(Observe(model, 512, 1));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), ErrorCode::kOutOfBudget);
  const std::string message = refused.status().message();
  const std::string mark = "minimum of ";
  const uint64_t minimum = std::stoull(message.substr(message.find(mark) + mark.size()));
  EXPECT_FALSE(policy->Decide(Observe(model, 512, minimum - 1)).ok());

  const uint64_t dense = Total(Observe(model, 512), Plan::Dense(n_layer));
  const uint64_t step = (dense - minimum) / 97 + 1;
  for (uint64_t limit = minimum; limit < dense + 2 * step; limit += step) {
    const Observation observation = Observe(model, 512, limit);
    const auto decision = policy->Decide(observation);
    ASSERT_TRUE(decision.ok()) << decision.status().message();
    EXPECT_LE(Total(observation, decision->plan), limit);
    EXPECT_EQ(FootprintOf(observation, decision->plan).peak_bytes(), decision->footprint.peak_bytes());
    EXPECT_EQ(decision->plan.dense(), limit >= dense);
    if (decision->plan.dense()) {
      ASSERT_TRUE(decision->loss);
      EXPECT_EQ(decision->loss->nats, 0);
      EXPECT_TRUE(decision->loss->measured);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Names, EveryPolicy,
                         testing::Combine(testing::ValuesIn(ProfilePolicyNames()), testing::Values(3, 32, 33, 80)),
                         [](const auto& test) {
                           std::string name = std::get<0>(test.param) + std::to_string(std::get<1>(test.param));
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(OrderPolicies, DropInTheOrderOfTheirRanking) {
  const MemoryModel model = TestModel(6);
  const Profile profile = TestProfile(6);
  for (const char* name : {"gsi", "one-shot", "shortgpt", "mha-drop", "ffn-skip"}) {
    const Observation observation = Observe(model, 512, Total(Observe(model, 512), Plan::Dense(6)) * 9 / 10);
    EXPECT_EQ(MakeOrFail(name, profile)->Decide(observation)->plan,
              DropUntilItFits(observation, profile.FindRanking(name)->drop_order)->plan);
  }
}

TEST(OrderPolicies, DensityTakesTheChainOfTheNearestWorkload) {
  const MemoryModel model = TestModel(6);
  const Profile profile = TestProfile(6);
  const auto policy = MakeOrFail("density", profile);
  for (const auto& tokens_and_chain : std::vector<std::pair<int64_t, int64_t>>{
           {1, 100}, {300, 100}, {330, 1000}, {3100, 1000}, {3200, 10000}, {100'000, 10000}}) {
    const auto tokens = tokens_and_chain.first;
    const auto chain = tokens_and_chain.second;
    const Observation observation = Observe(model, tokens, Total(Observe(model, tokens), Plan::Dense(6)) * 9 / 10);
    const auto found = std::find_if(profile.rankings.begin(), profile.rankings.end(), [&](const Ranking& ranking) {
      return ranking.method == "density" && ranking.kv_cells == chain;
    });
    EXPECT_EQ(policy->Decide(observation)->plan, DropUntilItFits(observation, found->drop_order)->plan) << tokens;
  }
}

TEST(OrderPolicies, RandomTakesTheOrderOfTheSeedOrSaysWhichThereAre) {
  const Profile profile = TestProfile(6);
  EXPECT_NE(MakeOrFail("random", profile, {.seed = 1})->DropOrder(6),
            MakeOrFail("random", profile, {.seed = 2})->DropOrder(6));
  const auto missing = MakeProfilePolicy("random", profile, {.seed = 3});
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.status().code(), ErrorCode::kNotFound);
  EXPECT_NE(missing.status().message().find("1, 2"), std::string::npos) << missing.status().message();
}

TEST(PredictedLoss, IsMeasuredOrTheBestOfThoseThatKeepNoMore) {
  Profile profile = TestProfile(3);
  Archive& archive = profile.ArchiveFor(TestSet());
  Measure(archive, *Plan::ParseDrop("a0", 3), 0.1);
  Measure(archive, *Plan::ParseDrop("a0,f1", 3), 0.4);
  Measure(archive, *Plan::ParseDrop("a0,f1,f2", 3), 0.3);
  const LossTable table(profile.primary(), 3);
  EXPECT_EQ(table.size(), 4u);
  const auto expect = [&](const char* drop, std::optional<double> nats, bool measured) {
    const auto loss = table.Predict(*Plan::ParseDrop(drop, 3));
    ASSERT_EQ(loss.has_value(), nats.has_value()) << drop;
    if (nats) {
      EXPECT_NEAR(loss->nats, *nats, 1e-15) << drop;
      EXPECT_EQ(loss->measured, measured) << drop;
    }
  };
  expect("", 0.0, true);
  expect("a0", 0.1, true);
  expect("a0,f1", 0.4, true);  // although a subset of it does better
  expect("f1", 0.3, false);
  expect("f2", 0.3, false);
  expect("a0,f2", 0.3, false);
  expect("a1", std::nullopt, false);
  const auto half = table.Predict(*Plan::Parse("a0=0.5", 3));
  ASSERT_TRUE(half);
  EXPECT_FALSE(half->measured) << "a block of half width was not measured";
}

TEST(PredictedLoss, ComesWithStaticAndDataFreeDecisionsToo) {
  const MemoryModel model = TestModel(3);
  Profile profile = TestProfile(3);
  Measure(profile.ArchiveFor(TestSet()), *Plan::ParseDrop("a1,f1", 3), 0.5);
  auto policy = WithPredictedLoss(std::make_unique<StaticPolicy>(*Plan::ParseDrop("f1", 3)), profile);
  ASSERT_TRUE(policy.ok());
  EXPECT_STREQ((*policy)->name(), "static");
  const auto decision = (*policy)->Decide(Observe(model, 512));
  ASSERT_TRUE(decision.ok() && decision->loss);
  EXPECT_EQ(decision->loss->nats, 0.5);
  EXPECT_FALSE(decision->loss->measured);
}

TEST(QualityFloor, RefusesNamingLossFloorAndTheBudgetThatMeetsIt) {
  const MemoryModel model = TestModel(3);
  Profile profile = TestProfile(3);
  Archive& archive = profile.ArchiveFor(TestSet());
  Measure(archive, *Plan::ParseDrop("f0", 3), 0.125);
  Measure(archive, *Plan::ParseDrop("a0", 3), 0.25);
  Measure(archive, *Plan::ParseDrop("f0,f1", 3), 0.75);
  const auto policy = MakeOrFail("table", profile, {.max_loss = 0.5});
  const uint64_t needed = Total(Observe(model, 512), *Plan::ParseDrop("a0", 3));
  const auto served = policy->Decide(Observe(model, 512, needed));
  ASSERT_TRUE(served.ok()) << served.status().message();
  EXPECT_EQ(served->plan.ToText(), "a0=0");
  const auto refused = policy->Decide(Observe(model, 512, needed - 1));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), ErrorCode::kOutOfBudget);
  for (const std::string& part : {std::string("measured loss of 0.75"), std::string("floor of 0.5"),
                                  std::string("f0=0 f1=0"), std::to_string(needed), std::to_string(needed - 1)}) {
    EXPECT_NE(refused.status().message().find(part), std::string::npos) << refused.status().message();
  }
  EXPECT_TRUE(MakeOrFail("table", profile)->Decide(Observe(model, 512, needed - 1)).ok());
}

TEST(QualityFloor, RefusesWhatNothingIsKnownAbout) {
  const MemoryModel model = TestModel(3);
  Profile profile = TestProfile(3);
  Measure(profile.ArchiveFor(TestSet()), *Plan::ParseDrop("f0", 3), 0.25);
  const Observation tight = Observe(model, 512, Total(Observe(model, 512), PlanOfBits(3, 0)));
  for (const std::string& name : ProfilePolicyNames()) {
    const auto refused = MakeOrFail(name, profile, {.max_loss = 100})->Decide(tight);
    ASSERT_FALSE(refused.ok()) << name;
    EXPECT_EQ(refused.status().code(), ErrorCode::kOutOfBudget);
    EXPECT_NE(refused.status().message().find("no loss is known"), std::string::npos) << refused.status().message();
  }
}

TEST(QualityFloor, IsANumberFromZeroUp) {
  const Profile profile = TestProfile(3);
  for (const double floor : {-0.1, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_EQ(MakeProfilePolicy("gsi", profile, {.max_loss = floor}).status().code(), ErrorCode::kInvalidArgument);
  }
  const MemoryModel model = TestModel(3);
  const auto policy = MakeOrFail("gsi", profile, {.max_loss = 0});
  EXPECT_TRUE(policy->Decide(Observe(model, 512)).ok()) << "the dense plan has no loss";
}

TEST(ProfilePolicies, AProfileThatLacksSomethingSaysWhat) {
  Profile profile = TestProfile(3);
  profile.rankings.clear();
  for (const std::string& name : ProfilePolicyNames()) {
    const auto missing = MakeProfilePolicy(name, profile);
    ASSERT_FALSE(missing.ok()) << name;
    EXPECT_EQ(missing.status().code(), ErrorCode::kNotFound);
    for (const std::string& part : {name, std::string("espalier rank")}) {
      EXPECT_NE(missing.status().message().find(part), std::string::npos) << missing.status().message();
    }
  }
  const auto unknown = MakeProfilePolicy("magic\n", profile);
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.status().code(), ErrorCode::kInvalidArgument);
  for (const std::string& name : ProfilePolicyNames()) {
    EXPECT_NE(unknown.status().message().find(name), std::string::npos) << unknown.status().message();
  }
  EXPECT_EQ(unknown.status().message().find('\n'), std::string::npos);
}

TEST(ProfilePolicies, AnOrderThatIsNoneIsRefused) {
  Profile profile = TestProfile(3);
  std::vector<BlockId> twice = ShuffledOrder(3, 1);
  twice[0] = twice[1];
  std::vector<BlockId> beyond = ShuffledOrder(3, 1);
  beyond[0] = {6};
  const std::vector<BlockId> few = {{0}, {1}};
  for (const auto& order : {twice, beyond, few}) {
    profile.Put({.method = "gsi", .drop_order = order, .score = {}});
    profile.Put({.method = "density", .kv_cells = 1000, .drop_order = order, .score = {}});
    Measure(profile.ArchiveFor(TestSet()), *Plan::ParseDrop("f0", 3), 0.25);
    for (const char* name : {"gsi", "density", "table"}) {
      EXPECT_EQ(MakeProfilePolicy(name, profile).status().code(), ErrorCode::kCorrupt) << name;
    }
  }
}

TEST(ProfilePolicies, LossesComeFromAnArchiveOfTheAblationServed) {
  Profile profile = TestProfile(3);
  Measure(profile.ArchiveFor(TestSet()), *Plan::ParseDrop("f0", 3), 0.25);
  Measure(profile.ArchiveFor(TestSet(Ablation::kMean)), *Plan::ParseDrop("f0", 3), 0.125);
  const MemoryModel model = TestModel(3);
  const Observation observation = Observe(model, 512, Total(Observe(model, 512), Plan::Dense(3)) - 1);
  EXPECT_EQ(MakeOrFail("table", profile)->Decide(observation)->loss->nats, 0.25);
  EXPECT_EQ(MakeOrFail("table", profile, {.ablation = Ablation::kMean})->Decide(observation)->loss->nats, 0.125);
  profile.ablation = Ablation::kMean;
  EXPECT_EQ(MakeOrFail("table", profile)->Decide(observation)->loss->nats, 0.125);

  profile.means = {.n_embd = 1, .values = std::vector<float>(6, 0.5F)};
  profile.archives.pop_back();
  MeasurementSet set = TestSet(Ablation::kMean);
  set.means_hash = std::string(32, 'b');
  Measure(profile.ArchiveFor(set), *Plan::ParseDrop("f0", 3), 0.5);
  EXPECT_EQ(ServedArchive(profile, {.ablation = Ablation::kMean}), nullptr) << "measured with other means";
  set.means_hash = HashHex(std::as_bytes(std::span(profile.means.values)));
  Measure(profile.ArchiveFor(set), *Plan::ParseDrop("f0", 3), 0.75);
  EXPECT_EQ(MakeOrFail("table", profile)->Decide(observation)->loss->nats, 0.75);
}

TEST(ProfilePolicies, NothingIsServedFromATextThatTheProfileWasNotRankedWith) {
  Profile profile = TestProfile(3);
  Measure(profile.ArchiveFor(TestSet()), *Plan::ParseDrop("f0", 3), 0.25);
  MeasurementSet judged = TestSet(Ablation::kMean);
  judged.tokens_hash = std::string(32, 'b');
  Measure(profile.ArchiveFor(judged), *Plan::ParseDrop("f0", 3), 0.5);
  Measure(profile.ArchiveFor(judged), *Plan::ParseDrop("f1", 3), 0.5);
  EXPECT_EQ(ServedArchive(profile, {.ablation = Ablation::kMean}), nullptr);
  EXPECT_EQ(MakeProfilePolicy("table", profile, {.ablation = Ablation::kMean}).status().code(), ErrorCode::kNotFound);

  Measure(profile.ArchiveFor(TestSet(Ablation::kMean)), *Plan::ParseDrop("f0", 3), 0.125);
  EXPECT_EQ(ServedArchive(profile, {.ablation = Ablation::kMean}), profile.FindArchive(TestSet(Ablation::kMean)));
  EXPECT_EQ(ServedArchive(profile), profile.primary());

  profile.primary_set.clear();
  EXPECT_EQ(ServedArchive(profile), nullptr) << "nobody knows which text is for what";
}

TEST(ProfilePolicies, LossesComeFromAnArchiveOfTheKvTypesServedWhereThereIsOne) {
  Profile profile = TestProfile(3);
  Measure(profile.ArchiveFor(TestSet()), *Plan::ParseDrop("f0", 3), 0.25);
  Measure(profile.ArchiveFor(TestSet()), *Plan::ParseDrop("f1", 3), 0.5);
  const ProfilePolicyOptions quantised = {.key_type = "q8_0", .value_type = "q8_0"};
  EXPECT_EQ(ServedArchive(profile, quantised), profile.primary()) << "better than none";
  MeasurementSet set = TestSet();
  set.key_type = "q8_0";
  profile.ArchiveFor(set);
  set.value_type = "q8_0";
  const WindowLoss begun[] = {{10, 1}};
  ASSERT_TRUE(profile.ArchiveFor(set).Add(*Plan::ParseDrop("f2", 3), 0, begun));
  EXPECT_EQ(ServedArchive(profile, quantised), profile.primary()) << "nothing has been measured whole yet";
  Measure(profile.ArchiveFor(set), *Plan::ParseDrop("f0", 3), 0.125);
  EXPECT_EQ(ServedArchive(profile, quantised), profile.FindArchive(set));
  EXPECT_EQ(ServedArchive(profile, ServedLike(TestSet())), profile.primary());
  EXPECT_EQ(ServedArchive(profile), profile.primary());
  profile.primary_set = set.Key();
  EXPECT_EQ(ServedArchive(profile, ServedLike(TestSet())), profile.FindArchive(TestSet()));
  EXPECT_EQ(ServedArchive(profile), profile.FindArchive(set));

  const MemoryModel model = TestModel(3);
  const Observation observation = Observe(model, 512, Total(Observe(model, 512), Plan::Dense(3)) - 1);
  EXPECT_EQ(MakeOrFail("table", profile, quantised)->Decide(observation)->loss->nats, 0.125);
  EXPECT_EQ(MakeOrFail("table", profile, ServedLike(TestSet()))->Decide(observation)->loss->nats, 0.25);
}

TEST(ProfilePolicies, DecideTheSameFromSeveralThreads) {
  const MemoryModel model = TestModel(3);
  const SmallWorld world(3);
  for (const std::string& name : ProfilePolicyNames()) {
    const auto policy = MakeOrFail(name, world.profile);
    const auto decide_all = [&] {
      std::string plans;
      for (uint64_t kept = 0; kept < 64; ++kept) {
        const auto decision = policy->Decide(Observe(model, 512, Total(Observe(model, 512), PlanOfBits(3, kept))));
        plans += decision.ok() ? decision->plan.ToText() + "; " : "none; ";
      }
      return plans;
    };
    const std::string expected = decide_all();
    std::vector<std::string> found(4);
    std::vector<std::thread> threads;
    for (std::string& plans : found) {
      threads.emplace_back([&plans, &decide_all] { plans = decide_all(); });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    for (const std::string& plans : found) {
      EXPECT_EQ(plans, expected) << name;
    }
  }
}

}  // namespace
}  // namespace espalier
