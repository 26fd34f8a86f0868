// What each policy decides in each cell (scenario x budget), and how long it thinks about it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "control/scenarios.h"
#include "control/survey.h"
#include "policy/policy.h"
#include "policy/profile_policies.h"
#include "profile/profile.h"

namespace espalier {

// A policy that takes part. `random` takes part with each of the profile's random orders, those of
// RAP and StratNet with each agent, all others once.
struct Contestant {
  std::string name;
  std::vector<std::unique_ptr<Policy>> instances;
  std::vector<uint64_t> seeds = {};  // of the instances; empty where there is nothing random about it
};

struct Lineup {
  std::vector<Contestant> contestants;
  std::vector<std::string> missing;  // "density: the profile has no ...": why a policy does not take part
};

// Every policy of AllProfilePolicyNames() for which the profile has what it needs (but "rap", which is one of its
// kinds, and "rap-exact" where the profile has no agent to hold it against), and data-free, with `options` (but for the
// seed). They hold nothing of the profile.
Lineup MakeLineup(const Profile& profile, const ProfilePolicyOptions& options = {});

// A scenario, and what is known about memory at its workload.
struct ScenarioMemory {
  Scenario scenario;
  MemorySurvey survey;
};

struct Cell {
  size_t scenario = 0;  // index
  Budget budget = Budget::Percent(100);
  uint64_t limit_bytes = 0;
  bool dense_fits = false;
};

// Scenario by scenario, each with its budgets in their order.
std::vector<Cell> MakeCells(const std::vector<ScenarioMemory>& scenarios);

// A contestant in a cell.
struct Choice {
  std::vector<Decision> decisions;  // one for each instance; empty: refused
  std::string refusal;              // why
  std::vector<float> decision_ms;   // of every call, ascending
};

// Calls every instance `calls` times: policies are pure, so the first decision is the decision, and the rest is timing.
// REQUIRES: calls > 0
Choice Choose(const Contestant& contestant, const Observation& observation, int calls);

}  // namespace espalier
