// Policies that live on a profile: lookup in the archive, and the published baselines as drop orders.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "policy/policy.h"
#include "profile/profile.h"

namespace espalier {

// table, density, gsi, one-shot, shortgpt, mha-drop, ffn-skip, random: the names --policy takes, the default first.
const std::vector<std::string>& ProfilePolicyNames();

struct ProfilePolicyOptions {
  // Refuse (kOutOfBudget) a decision whose predicted loss is above this, naming both: the quality floor. Empty: serve
  // whatever fits.
  std::optional<double> max_loss;
  uint64_t seed = 1;  // random: which of the profile's orders
};

// kInvalidArgument for an unknown name (lists those there are); kNotFound, naming what `espalier rank` would add, if
// the profile lacks what the policy needs. `profile` must outlive the policy.
Result<std::unique_ptr<Policy>> MakeProfilePolicy(std::string_view name, const Profile& profile,
                                                  const ProfilePolicyOptions& options = {});

}  // namespace espalier
