// Every policy that lives on a profile, learned ones included, by the name that --policy takes.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "policy/policy.h"
#include "policy/profile_policies.h"
#include "profile/profile.h"

namespace espalier {

// ProfilePolicyNames(), RapPolicyNames() and "stratnet", the default first.
const std::vector<std::string>& AllProfilePolicyNames();

// As MakeProfilePolicy; rap and stratnet: of the profile's agents the one of `options.seed`, else the first. Where
// there is none, or one of another version or shape of model: kNotFound, kUnsupported, kInvalidArgument.
Result<std::unique_ptr<Policy>> MakePolicy(std::string_view name, const Profile& profile,
                                           const ProfilePolicyOptions& options = {});

}  // namespace espalier
