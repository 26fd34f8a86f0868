// From --profile, --policy, --max-loss, --ablation and the user's plan to the policy that decides.
#pragma once

#include <CLI/CLI.hpp>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/options.h"
#include "model/block_means.h"
#include "policy/policy.h"
#include "policy/profile_policies.h"
#include "profile/profile.h"

namespace espalier {

// --profile --policy --max-loss --ablation.
struct PolicyFlags {
  std::string profile;             // file; "none"; empty: MODEL.profile where there is one
  std::string policy;              // empty: ChoosePolicy's default
  std::string ablation;            // "mean", "zero"; empty: the profile's choice, zero without one
  std::optional<double> max_loss;  // nats per token
};
void AddPolicyFlags(CLI::App& app, PolicyFlags& flags);

// kInvalidArgument if `output`, a file to be written, is the profile at `profile` (empty: none).
Status RefuseProfile(const std::string& output, const std::string& profile);

// The profile of a command, if it has one.
struct ProfileInUse {
  std::string path;                        // empty: none
  std::shared_ptr<const Profile> profile;  // nullptr: none
  bool found_beside_model = false;         // nobody named it
  Ablation ablation = Ablation::kZero;
  std::shared_ptr<const BlockMeans> means;  // for EngineOptions::means; nullptr with ablation zero
};

// Reads what the flags ask for. Parts of a damaged profile that were lost are told on stderr; a profile that was merely
// found beside the model and cannot be used is left out with a warning. Fails where a named one cannot be read or
// belongs to another model, and where ablation mean has no means.
Result<ProfileInUse> OpenProfile(const PolicyFlags& flags, const Model& model);

// What a policy is to serve.
struct ServedModel {
  int n_layer = 0;
  std::string key_type;  // KV types, as MeasurementSet has them
  std::string value_type;
  bool has_budget = false;
};

// The policy for a command with `plan`: static where the user gave a plan, or nothing to decide by; else the one named,
// else table with a profile, else data-free. Holds nothing of the profile. Warns on stderr where the profile's losses
// were measured with other KV types.
// Fails on names that are not known or do not go with the rest, listing or naming what is expected.
Result<std::unique_ptr<Policy>> ChoosePolicy(const PolicyFlags& flags, const ProfileInUse& profile,
                                             const PlanOptions& plan, const ServedModel& served);

// Empty, or a warning: the losses that the profile has were measured with other KV types than those of `options`.
std::string KvTypesWarning(const Profile& profile, const ProfilePolicyOptions& options);

}  // namespace espalier
