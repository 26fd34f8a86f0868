#include "cli/policy_choice.h"

#include <fmt/format.h>

#include <unistd.h>
#include <filesystem>

#include <algorithm>
#include <utility>

#include "cli/number_check.h"
#include "cli/terminal.h"
#include "control/policy_factory.h"
#include "model/quote.h"
#include "policy/data_free.h"
#include "policy/static_plan.h"
#include "profile/profile_file.h"

namespace espalier {
namespace {

constexpr const char* kNoProfile = "none";
constexpr const char* kDataFree = "data-free";
constexpr const char* kStatic = "static";
constexpr const char* kTable = "table";

// What --policy takes: those that need a profile, the default first, then the others.
std::vector<std::string> PolicyNames() {
  std::vector<std::string> names = AllProfilePolicyNames();
  names.insert(names.end(), {kDataFree, kStatic});
  return names;
}

bool Exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

// The profile named, or else found; its path stays empty where there is none.
Result<ProfileInUse> ReadProfileFile(const PolicyFlags& flags, const Model& model) {
  ProfileInUse use;
  if (flags.profile == kNoProfile) {
    return use;
  }
  use.path = flags.profile;
  if (use.path.empty()) {
    use.path = model.path() + ".profile";
    // A ranking that has only just begun has no more than its journal.
    if (!Exists(use.path) && !Exists(use.path + ".journal")) {
      return ProfileInUse();
    }
    use.found_beside_model = true;
  }
  RecoveryNotes notes;
  auto profile = ReadProfile(use.path, model, &notes);
  if (!profile.ok() && !use.found_beside_model) {
    return profile.status();
  }
  if (!profile.ok()) {
    Warn(fmt::format("the profile beside the model is not used: {}", profile.status().message()));
    return ProfileInUse();
  }
  for (const std::string& note : notes) {
    Warn(note);
  }
  use.profile = std::make_shared<const Profile>(std::move(*profile));
  return use;
}

Result<std::shared_ptr<const BlockMeans>> MeansOf(const ProfileInUse& use, const Model& model) {
  const BlockMeans& means = use.profile->means;
  const auto expected = static_cast<size_t>(model.n_block()) * static_cast<size_t>(model.hparams().n_embd);
  if (means.n_embd != model.hparams().n_embd || means.values.size() != expected) {
    return Corrupt(fmt::format("profile {}: means of {} blocks of {} expected, found {} values in rows of {}",
                               Quote(use.path), model.n_block(), model.hparams().n_embd, means.values.size(),
                               means.n_embd));
  }
  return std::make_shared<const BlockMeans>(means);
}

Status CheckName(const std::string& name) {
  const std::vector<std::string> names = PolicyNames();
  if (!name.empty() && std::find(names.begin(), names.end(), name) == names.end()) {
    return InvalidArgument(fmt::format("policy {}: expected one of {}", Quote(name), fmt::join(names, ", ")));
  }
  return Status::Ok();
}

Result<std::unique_ptr<Policy>> MakeStatic(const PlanOptions& options, int n_layer) {
  ESPALIER_ASSIGN_OR_RETURN(const Plan plan, options.Read(n_layer));
  if (!plan.whole_blocks_only()) {
    return Unsupported(
        fmt::format("plan '{}': blocks can be kept whole (1) or dropped (0), not in between", plan.ToText()));
  }
  return std::unique_ptr<Policy>(std::make_unique<StaticPolicy>(plan));
}

std::string DefaultPolicy(const ProfileInUse& profile, const PlanOptions& plan, bool has_budget) {
  if (plan.given() || !has_budget) {
    return kStatic;
  }
  return profile.profile != nullptr ? kTable : kDataFree;
}

}  // namespace

void AddPolicyFlags(CLI::App& app, PolicyFlags& flags) {
  const char* const kGroup = "Policy";
  app.add_option("--profile", flags.profile,
                 "What `espalier rank` measured for this model; default: MODEL.profile if there is one; none: without")
      ->group(kGroup);
  app.add_option("--policy", flags.policy,
                 fmt::format("What chooses a plan that fits: {}; default: table with a profile, else data-free",
                             fmt::join(PolicyNames(), ", ")))
      ->group(kGroup);
  app.add_option("--max-loss", flags.max_loss,
                 "Quality floor: refuse plans whose predicted loss is above this, in nats per token")
      ->check(AtLeast(0.0))
      ->group(kGroup);
  app.add_option("--ablation", flags.ablation,
                 "What dropped blocks add: mean (their mean output, from the profile), zero; default: as the profile "
                 "says, else zero")
      ->group(kGroup);
}

Status RefuseProfile(const std::string& output, const std::string& profile) {
  std::error_code error;
  if (!profile.empty() && std::filesystem::equivalent(output, profile, error)) {
    return InvalidArgument(fmt::format("{}: expected another file than the profile's own", Quote(output)));
  }
  return Status::Ok();
}

Result<ProfileInUse> OpenProfile(const PolicyFlags& flags, const Model& model) {
  std::optional<Ablation> asked;
  if (!flags.ablation.empty()) {
    ESPALIER_ASSIGN_OR_RETURN(asked, ParseAblation(flags.ablation));
  }
  ESPALIER_ASSIGN_OR_RETURN(ProfileInUse use, ReadProfileFile(flags, model));
  if (use.profile == nullptr) {
    if (asked == Ablation::kMean) {
      return InvalidArgument("--ablation mean: means come from a profile; expected --profile FILE");
    }
    return use;
  }
  use.ablation = asked.value_or(use.profile->ablation);
  if (use.ablation == Ablation::kMean && use.profile->means.empty()) {
    if (asked) {
      return NotFound(fmt::format("--ablation mean: profile {} has no means of blocks; `espalier rank` measures them",
                                  Quote(use.path)));
    }
    Warn(fmt::format("profile {}: the means of blocks are missing; dropped blocks add nothing instead",
                     Quote(use.path)));
    use.ablation = Ablation::kZero;
  }
  if (use.ablation == Ablation::kMean) {
    ESPALIER_ASSIGN_OR_RETURN(use.means, MeansOf(use, model));
  }
  return use;
}

std::string KvTypesWarning(const Profile& profile, const ProfilePolicyOptions& options) {
  const Archive* archive = ServedArchive(profile, options);
  if (archive == nullptr ||
      (archive->set().key_type == options.key_type && archive->set().value_type == options.value_type)) {
    return "";
  }
  return fmt::format(
      "its losses were measured with a KV cache of {} keys and {} values, not {} and {}: what it predicts is a little "
      "off",
      archive->set().key_type, archive->set().value_type, options.key_type, options.value_type);
}

Result<std::unique_ptr<Policy>> ChoosePolicy(const PolicyFlags& flags, const ProfileInUse& profile,
                                             const PlanOptions& plan, const ServedModel& served) {
  ESPALIER_RETURN_IF_ERROR(CheckName(flags.policy));
  const std::string name = flags.policy.empty() ? DefaultPolicy(profile, plan, served.has_budget) : flags.policy;
  if (plan.given() && name != kStatic) {
    return InvalidArgument(
        fmt::format("--policy {}: a plan given by --plan or --drop is policy static, or none", name));
  }
  const bool needs_profile = name != kStatic && name != kDataFree;
  if (profile.profile == nullptr && needs_profile) {
    return InvalidArgument(
        fmt::format("--policy {} needs a profile: expected --profile FILE, as `espalier rank` writes it", name));
  }
  if (profile.profile == nullptr && flags.max_loss) {
    return InvalidArgument("--max-loss: predicted losses come from a profile; expected --profile FILE");
  }
  const ProfilePolicyOptions options = {.max_loss = flags.max_loss,
                                        .ablation = profile.ablation,
                                        .key_type = served.key_type,
                                        .value_type = served.value_type};
  if (profile.profile != nullptr && (plan.given() || served.has_budget)) {
    if (const std::string warning = KvTypesWarning(*profile.profile, options); !warning.empty()) {
      Warn(fmt::format("profile {}: {}", Quote(profile.path), warning));
    }
  }
  if (needs_profile) {
    auto policy = MakePolicy(name, *profile.profile, options);
    if (policy.ok() || !flags.policy.empty() || !profile.found_beside_model) {
      return policy;
    }
    // Nobody asked for it: a profile that is only just being made must not keep the model from running.
    Warn(fmt::format("{}: {}; using policy {}", profile.path, policy.status().message(), kDataFree));
  }
  std::unique_ptr<Policy> made = std::make_unique<DataFreePolicy>();
  if (name == kStatic) {
    ESPALIER_ASSIGN_OR_RETURN(made, MakeStatic(plan, served.n_layer));
  }
  return profile.profile == nullptr ? Result<std::unique_ptr<Policy>>(std::move(made))
                                    : WithPredictedLoss(std::move(made), *profile.profile, options);
}

}  // namespace espalier
