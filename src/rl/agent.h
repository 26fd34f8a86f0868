// RAP's agent as it is kept in a profile, and as a policy.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "policy/policy.h"
#include "profile/profile.h"
#include "rl/q_network.h"

namespace espalier {

// The record of a network that was trained on `subject`, a model's fingerprint.
Agent RecordOf(const QNetwork& network, std::string reward, uint64_t seed, int64_t episodes, std::string trained_on);

// The network of a record, for a model of `n_block` blocks.
// kUnsupported if the record's states are of another version, naming both; kInvalidArgument if its network is unknown,
// or was made for another number of blocks (the shared one serves any).
Result<std::unique_ptr<QNetwork>> NetworkOf(const Agent& agent, int n_block);

// By block, what agents see of it: the scores of the profile's gsi ranking. kNotFound if there is none.
Result<std::vector<double>> ImportanceOf(const Profile& profile);

// The agent that the profile has of this reward ("" any: measured before paper), of this seed where there is one, else
// the first. kNotFound, naming what `espalier train rap` would add.
Result<const Agent*> FindAgent(const Profile& profile, const std::string& reward, uint64_t seed);

// From the dense plan the best action that is allowed, until the plan fits; then, as every policy that drops in an
// order, the largest dropped blocks that still fit return (policy.h: DropUntilItFits). Fits in integers or refuses.
class RapPolicy final : public Policy {
 public:
  // REQUIRES: the network is for as many blocks as there are importances.
  RapPolicy(std::string name, std::unique_ptr<QNetwork> network, std::vector<double> importance);

  const char* name() const override { return name_.c_str(); }
  Result<Decision> Decide(const Observation& observation) const override;
  // By rising importance: the agent has an order for an observation only.
  std::vector<BlockId> DropOrder(int n_layer) const override;

 private:
  std::string name_;
  std::unique_ptr<QNetwork> network_;
  std::vector<double> importance_;
  std::shared_ptr<const BlockMarks> marks_;
  QNetwork::LastState before_tasks_;  // where every episode begins
};

// What an agent of the paper's reward would do if it had learned it perfectly: the optimum by dynamic programming
// (rl/exact.h), discounted as agents are. For judging the reward apart from the learning; slow where layers take
// different bytes.
class ExactPaperPolicy final : public Policy {
 public:
  explicit ExactPaperPolicy(std::vector<double> importance) : importance_(std::move(importance)) {}

  const char* name() const override { return kName; }
  Result<Decision> Decide(const Observation& observation) const override;
  // By rising importance, as RapPolicy.
  std::vector<BlockId> DropOrder(int n_layer) const override;

  static constexpr char kName[] = "rap-exact";

 private:
  std::vector<double> importance_;
};

// "rap" (the measured agent where there is one, else the paper's), "rap-measured", "rap-paper", "rap-exact".
const std::vector<std::string>& RapPolicyNames();
// "rap-measured" of "measured".
std::string PolicyOfReward(const std::string& reward);
Result<std::unique_ptr<Policy>> MakeRapPolicy(const std::string& name, const Profile& profile, uint64_t seed);

}  // namespace espalier
