#include "control/policy_factory.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "model/quote.h"
#include "rl/agent.h"
#include "strategy/strat_policy.h"

namespace espalier {

const std::vector<std::string>& AllProfilePolicyNames() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all = ProfilePolicyNames();
    all.insert(all.end(), RapPolicyNames().begin(), RapPolicyNames().end());
    all.emplace_back(kStratNetwork);
    return all;
  }();
  return names;
}

Result<std::unique_ptr<Policy>> MakePolicy(std::string_view name, const Profile& profile,
                                           const ProfilePolicyOptions& options) {
  const auto is = [&](const std::string& other) { return other == name; };
  if (std::any_of(RapPolicyNames().begin(), RapPolicyNames().end(), is)) {
    ESPALIER_ASSIGN_OR_RETURN(auto policy, MakeRapPolicy(std::string(name), profile, options.seed));
    return WithPredictedLoss(std::move(policy), profile, options);
  }
  if (name == kStratNetwork) {
    ESPALIER_ASSIGN_OR_RETURN(auto policy, MakeStratPolicy(profile, options));
    return WithPredictedLoss(std::move(policy), profile, options);
  }
  if (std::none_of(ProfilePolicyNames().begin(), ProfilePolicyNames().end(), is)) {
    return InvalidArgument(fmt::format("policy {}: expected one of {}", Quote(std::string(name)),
                                       fmt::join(AllProfilePolicyNames(), ", ")));
  }
  return MakeProfilePolicy(name, profile, options);
}

}  // namespace espalier
