// StratNet as it is kept in a profile, and as a policy.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "policy/loss_table.h"
#include "policy/policy.h"
#include "policy/profile_policies.h"
#include "profile/profile.h"
#include "strategy/strat_net.h"
#include "surrogate/loss_surrogate.h"

namespace espalier {

// Of what StratNet sees (StratInput): a network that was trained on other numbers is refused.
inline constexpr int kStratInputVersion = 1;
// As the record of a profile calls it.
inline constexpr char kStratNetwork[] = "stratnet";

// The record of a network that learned from `evaluations` measured plans of `trained_on`, a model's fingerprint.
Agent RecordOf(const StratNet& net, uint64_t seed, int64_t evaluations, std::string trained_on);

// The record that the profile has of this seed; without one, the first. kNotFound, naming the seeds there are or what
// `espalier train stratnet` would add.
Result<const Agent*> FindStratRecord(const Profile& profile, std::optional<uint64_t> seed);
// The record's network. kUnsupported if it sees inputs of another version, kInvalidArgument if it is for another number
// of blocks.
Result<StratNet> StratNetOf(const Agent& record, int n_block);

// Of what StratNet has to say at the observation's workload, made to fit, the plan that loses the least: measured, or
// by the surrogate's mean. Fits in integers or refuses.
class StratPolicy final : public Policy {
 public:
  StratPolicy(StratNet net, LossSurrogate surrogate, LossTable measured)
      : net_(std::move(net)), surrogate_(std::move(surrogate)), measured_(std::move(measured)) {}

  const char* name() const override { return kStratNetwork; }
  Result<Decision> Decide(const Observation& observation) const override;
  // That of an even preference where KV takes as much as weights: StratNet has an order for a request only.
  std::vector<BlockId> DropOrder(int n_layer) const override;

 private:
  StratNet net_;
  LossSurrogate surrogate_;
  LossTable measured_;
};

// "stratnet". As MakeProfilePolicy, without predicted loss and floor.
Result<std::unique_ptr<Policy>> MakeStratPolicy(const Profile& profile, const ProfilePolicyOptions& options = {});

}  // namespace espalier
