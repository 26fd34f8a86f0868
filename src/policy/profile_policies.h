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
  std::optional<double> max_loss = {};
  uint64_t seed = 1;  // random: which of the profile's orders
  // What dropped blocks add where the plans are served: losses come from an archive of the same. Empty: as the profile
  // says.
  std::optional<Ablation> ablation = {};
  // KV types that plans are served with, as MeasurementSet has them; empty: any. They move losses a little: archives of
  // others are served from where there are none of these.
  std::string key_type = {};
  std::string value_type = {};
};

// To serve as `set` was measured.
ProfilePolicyOptions ServedLike(const MeasurementSet& set);

// The archive that losses are looked up in, of those that were measured on the primary one's text and with the ablation
// that is served (and the profile's means, where dropped blocks add them): rather one with whole rows, then one of the
// KV types that are served, then the primary one, then the one with the most whole rows; of equal ones the first.
// nullptr if there is none. Never one of another text: a profile also holds what was measured on texts that policies
// are judged by.
const Archive* ServedArchive(const Profile& profile, const ProfilePolicyOptions& options = {});

// kInvalidArgument for an unknown name (lists those there are) or a floor that is no number from 0 up; kNotFound,
// naming what `espalier rank` would add, if the profile lacks what the policy needs; kCorrupt if what it has is no
// order of the model's blocks. The policy copies what it needs: an archive of 10 000 rows takes 10 MB in a profile, and
// 0.2 MB in a policy.
Result<std::unique_ptr<Policy>> MakeProfilePolicy(std::string_view name, const Profile& profile,
                                                  const ProfilePolicyOptions& options = {});

// A policy that needs no profile (static, data-free), with predicted losses and the quality floor. Of the options,
// `seed` is not used. kInvalidArgument as above.
Result<std::unique_ptr<Policy>> WithPredictedLoss(std::unique_ptr<Policy> policy, const Profile& profile,
                                                  const ProfilePolicyOptions& options = {});

}  // namespace espalier
