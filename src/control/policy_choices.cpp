#include "control/policy_choices.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "base/check.h"
#include "base/stopwatch.h"
#include "control/policy_factory.h"
#include "policy/data_free.h"
#include "rl/agent.h"

namespace espalier {
namespace {

constexpr std::string_view kRandom = "random";

constexpr std::string_view kRap = "rap";  // one of its kinds: they take part under their own names

// Seeds of the orders or agents that the profile has for `name`, rising.
std::vector<uint64_t> SeedsOf(const Profile& profile, std::string_view name) {
  std::set<uint64_t> seeds;
  for (const Agent& agent : profile.agents) {
    if (name == PolicyOfReward(agent.reward) || name == agent.network) {
      seeds.insert(agent.seed);
    }
  }
  for (const Ranking& ranking : profile.rankings) {
    if (name == kRandom && ranking.method == kRandom) {
      seeds.insert(ranking.seed);
    }
  }
  return {seeds.begin(), seeds.end()};
}

}  // namespace

Lineup MakeLineup(const Profile& profile, const ProfilePolicyOptions& options) {
  Lineup lineup;
  for (const std::string& name : AllProfilePolicyNames()) {
    if (name == kRap || (name == ExactPaperPolicy::kName && SeedsOf(profile, PolicyOfReward("paper")).empty())) {
      continue;
    }
    Contestant contestant = {name, {}};
    const std::vector<uint64_t> seeds = SeedsOf(profile, name);
    for (const uint64_t seed : seeds.empty() ? std::vector{options.seed} : seeds) {
      ProfilePolicyOptions seeded = options;
      seeded.seed = seed;
      auto policy = MakePolicy(name, profile, seeded);
      if (policy.ok()) {
        contestant.instances.push_back(std::move(*policy));
        if (!seeds.empty()) {
          contestant.seeds.push_back(seed);
        }
      } else {
        lineup.missing.push_back(fmt::format("{}: {}", name, policy.status().message()));
      }
    }
    if (!contestant.instances.empty()) {
      lineup.contestants.push_back(std::move(contestant));
    }
  }
  auto data_free = WithPredictedLoss(std::make_unique<DataFreePolicy>(), profile, options);
  ESPALIER_CHECK(data_free.ok());  // nothing but a floor could be wrong, and there is none
  Contestant contestant = {(*data_free)->name(), {}};
  contestant.instances.push_back(std::move(*data_free));
  lineup.contestants.push_back(std::move(contestant));
  return lineup;
}

std::vector<Cell> MakeCells(const std::vector<ScenarioMemory>& scenarios) {
  std::vector<Cell> cells;
  for (size_t i = 0; i < scenarios.size(); ++i) {
    const MemorySurvey& survey = scenarios[i].survey;
    for (const Budget& budget : scenarios[i].scenario.budgets) {
      const uint64_t limit = budget.LimitBytes(survey.base);
      const bool dense_fits = survey.base.process_bytes + survey.base.dense_peak_bytes <= limit;
      cells.push_back({i, budget, limit, dense_fits});
    }
  }
  return cells;
}

Choice Choose(const Contestant& contestant, const Observation& observation, int calls) {
  ESPALIER_CHECK(calls > 0);
  Choice choice;
  for (const auto& policy : contestant.instances) {
    for (int i = 0; i < calls; ++i) {
      const Stopwatch watch;
      auto decision = policy->Decide(observation);
      choice.decision_ms.push_back(static_cast<float>(watch.Milliseconds()));
      if (i == 0 && decision.ok()) {
        choice.decisions.push_back(std::move(*decision));
      } else if (i == 0) {
        choice.refusal = decision.status().message();
      }
    }
  }
  if (!choice.refusal.empty()) {
    choice.decisions.clear();
  }
  std::sort(choice.decision_ms.begin(), choice.decision_ms.end());
  return choice;
}

}  // namespace espalier
