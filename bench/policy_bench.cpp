// What a decision costs: every policy on a profile of 10 000 measured plans, in the worst case for each (for the table:
// no plan fits before the last one looked at; for orders: everything has to go).
#include <benchmark/benchmark.h>
#include <time.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/stopwatch.h"
#include "policy/data_free.h"
#include "policy/policy.h"
#include "policy/profile_policies.h"
#include "profile/profile.h"
#include "rl/agent.h"

namespace espalier {
namespace {

constexpr int kRows = 10'000;
constexpr const char* kPaperAgent = "rap, paper network";
constexpr const char* kSharedAgent = "rap, shared network";

// Blocks of a 7B model in four bits, of slightly different sizes, and staging as repacked weights need it.
MemoryModel SomeMemory(int n_layer) {
  MemoryModel memory;
  for (int il = 0; il < n_layer; ++il) {
    memory.block_bytes.push_back(38'000'000 + static_cast<uint64_t>(il % 3) * 8192);
    memory.block_bytes.push_back(76'000'000 + static_cast<uint64_t>(il % 2) * 4096);
  }
  memory.block_staging_bytes = memory.block_bytes;
  memory.global_bytes = 150'000'000;
  memory.compute_bytes = 80'000'000;
  memory.kv = {
      .key_bytes_per_cell = 2176, .value_bytes_per_cell = 2176, .n_planes = 16, .page_bytes = 4096, .capacity = 32768};
  return memory;
}

// Every ranking, and kRows plans with everything dropped as the last and worst.
Profile SomeProfile(int n_layer) {
  Profile profile;
  profile.n_layer = n_layer;
  std::mt19937 random(1);
  std::vector<BlockId> order = DataFreePolicy().DropOrder(n_layer);
  for (const std::string& name : ProfilePolicyNames()) {
    std::shuffle(order.begin(), order.end(), random);
    Ranking ranking = {.method = name, .drop_order = order, .score = {}};
    for (size_t i = 0; i < order.size() && name == "gsi"; ++i) {
      ranking.score.push_back(0.01 * static_cast<double>(i + 1));  // agents look at them
    }
    ranking.seed = name == "random" ? 1 : 0;
    profile.Put(std::move(ranking));
  }
  // What a decision costs does not depend on what the agent has learned.
  profile.Put(RecordOf(*MakePaperNetwork(2 * n_layer, 1), "paper", 1, 0, ""));
  profile.Put(RecordOf(*MakeSharedNetwork(1), "measured", 1, 0, ""));
  MeasurementSet set;
  set.n_windows = 1;
  set.tokens_scored = 1;
  Archive& archive = profile.ArchiveFor(set);
  profile.primary_set = set.Key();
  std::vector<Plan> plans;
  while (archive.rows().size() + 1 < kRows) {
    std::shuffle(order.begin(), order.end(), random);
    Plan plan = Plan::Dense(n_layer);
    const auto n = static_cast<ptrdiff_t>(random() % (order.size() - 1)) + 1;
    std::for_each(order.begin(), order.begin() + n, [&](BlockId block) { plan.Drop(block); });
    const WindowLoss loss = {static_cast<double>(n) + 1e-9 * static_cast<double>(random()), 0};
    ESPALIER_CHECK(archive.Add(plan, 0, {&loss, 1}));
  }
  Plan nothing = Plan::Dense(n_layer);
  std::for_each(order.begin(), order.end(), [&](BlockId block) { nothing.Drop(block); });
  const WindowLoss worst = {1e9, 0};
  ESPALIER_CHECK(archive.Add(nothing, 0, {&worst, 1}));
  return profile;
}

// Profiles are dear to make and the same for every policy.
const Profile& ProfileOf(int n_layer) {
  static std::map<int, Profile> profiles;
  auto found = profiles.find(n_layer);
  if (found == profiles.end()) {
    found = profiles.emplace(n_layer, SomeProfile(n_layer)).first;
  }
  return found->second;
}

std::unique_ptr<Policy> MakePolicy(const std::string& name, const Profile& profile) {
  if (name == "data-free") {
    auto policy = WithPredictedLoss(std::make_unique<DataFreePolicy>(), profile);
    ESPALIER_CHECK(policy.ok());
    return std::move(*policy);
  }
  if (name == kPaperAgent || name == kSharedAgent) {
    auto agent = MakeRapPolicy(name == kPaperAgent ? "rap-paper" : "rap-measured", profile, 1);
    ESPALIER_CHECK(agent.ok());
    auto policy = WithPredictedLoss(std::move(*agent), profile);
    ESPALIER_CHECK(policy.ok());
    return std::move(*policy);
  }
  auto policy = MakeProfilePolicy(name, profile);
  ESPALIER_CHECK(policy.ok());
  return std::move(*policy);
}

// Of this thread: what a decision takes where other programs do not take the processor away in the middle of it.
double ProcessorMs() {
  timespec now = {};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e3 * static_cast<double>(now.tv_sec) + 1e-6 * static_cast<double>(now.tv_nsec);
}

double Percentile99(std::vector<double> ms) {
  std::sort(ms.begin(), ms.end());
  return ms[ms.size() * 99 / 100];
}

void Decide(benchmark::State& state, const std::string& name) {
  const auto n_layer = static_cast<int>(state.range(0)) / 2;
  const auto policy = MakePolicy(name, ProfileOf(n_layer));
  const MemoryModel memory = SomeMemory(n_layer);
  Observation observation = {
      .memory = &memory, .workload = Workload::Uniform(8, 4096), .limit_bytes = 0, .process_bytes = 30'000'000};
  Plan nothing = Plan::Dense(n_layer);
  for (const BlockId block : policy->DropOrder(n_layer)) {
    nothing.Drop(block);
  }
  // Nothing else fits.
  observation.limit_bytes = observation.process_bytes + FootprintOf(observation, nothing).peak_bytes();
  const auto decision = policy->Decide(observation);
  ESPALIER_CHECK(decision.ok() && decision->plan == nothing && decision->loss && decision->loss->measured);
  std::vector<double> wall_ms;
  std::vector<double> processor_ms;
  for (auto _ : state) {
    const double start = ProcessorMs();
    const Stopwatch stopwatch;
    benchmark::DoNotOptimize(policy->Decide(observation));
    wall_ms.push_back(stopwatch.Milliseconds());
    processor_ms.push_back(ProcessorMs() - start);
  }
  state.counters["p99_ms"] = Percentile99(wall_ms);
  state.counters["p99_processor_ms"] = Percentile99(processor_ms);
  state.counters["rows"] = kRows;
}

const bool kRegistered = [] {
  std::vector<std::string> names = ProfilePolicyNames();
  names.insert(names.end(), {"data-free", kPaperAgent, kSharedAgent});
  for (const std::string& name : names) {
    // Enough decisions for a 99th percentile.
    benchmark::RegisterBenchmark(("Decide/" + name).c_str(), Decide, name)
        ->ArgName("blocks")
        ->Arg(32)
        ->Arg(64)
        ->Iterations(4'000)
        ->Unit(benchmark::kMicrosecond);
  }
  return true;
}();

}  // namespace
}  // namespace espalier
