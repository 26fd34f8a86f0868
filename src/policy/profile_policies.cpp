#include "policy/profile_policies.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <tuple>
#include <utility>

#include "base/hash.h"
#include "model/quote.h"
#include "policy/data_free.h"
#include "policy/loss_table.h"
#include "policy/order_policy.h"
#include "policy/quality_floor.h"
#include "policy/table_policy.h"

namespace espalier {
namespace {

Status CheckFloor(const ProfilePolicyOptions& options) {
  if (options.max_loss && !(*options.max_loss >= 0)) {
    return InvalidArgument(
        fmt::format("quality floor: expected nats per token from 0 up, found {}", *options.max_loss));
  }
  return Status::Ok();
}

Status CheckOrder(const Ranking& ranking, int n_layer) {
  std::vector<bool> seen(2 * static_cast<size_t>(n_layer), false);
  for (const BlockId block : ranking.drop_order) {
    const bool known = block.index >= 0 && block.index < 2 * n_layer;
    if (!known || seen[static_cast<size_t>(block.index)]) {
      return Corrupt(fmt::format("profile's ranking '{}': {} {}", Printable(ranking.method, 32),
                                 known ? BlockName(block) : fmt::format("block {}", block.index),
                                 known ? "comes twice" : "is not one of the model's"));
    }
    seen[static_cast<size_t>(block.index)] = true;
  }
  if (ranking.drop_order.size() != seen.size()) {
    return Corrupt(fmt::format("profile's ranking '{}': {} blocks expected, found {}", Printable(ranking.method, 32),
                               seen.size(), ranking.drop_order.size()));
  }
  return Status::Ok();
}

std::shared_ptr<const LossTable> MakeTable(const Profile& profile, const ProfilePolicyOptions& options) {
  return std::make_shared<LossTable>(ServedArchive(profile, options), profile.n_layer);
}

Result<std::unique_ptr<Policy>> MakeTablePolicy(const Profile& profile, const ProfilePolicyOptions& options,
                                                std::shared_ptr<const LossTable> table) {
  if (table->size() <= 1) {
    return NotFound(
        fmt::format("policy 'table': the profile has no plans measured with ablation {} on the text that it was ranked "
                    "with; `espalier rank` measures them",
                    AblationName(options.ablation.value_or(profile.ablation))));
  }
  std::vector<BlockId> order = DataFreePolicy().DropOrder(profile.n_layer);
  if (const Ranking* gsi = profile.FindRanking("gsi")) {
    ESPALIER_RETURN_IF_ERROR(CheckOrder(*gsi, profile.n_layer));
    order = gsi->drop_order;
  }
  return std::unique_ptr<Policy>(std::make_unique<TablePolicy>(std::move(table), std::move(order)));
}

Result<std::unique_ptr<Policy>> MakeRandomPolicy(const Profile& profile, uint64_t seed) {
  std::string seeds;
  for (const Ranking& ranking : profile.rankings) {
    if (ranking.method != "random") {
      continue;
    }
    if (ranking.seed == seed) {
      ESPALIER_RETURN_IF_ERROR(CheckOrder(ranking, profile.n_layer));
      return std::unique_ptr<Policy>(std::make_unique<OrderPolicy>(ranking));
    }
    seeds += fmt::format("{}{}", seeds.empty() ? "" : ", ", ranking.seed);
  }
  return NotFound(fmt::format("policy 'random': the profile has no order of seed {}{}; `espalier rank` adds orders",
                              seed, seeds.empty() ? "" : fmt::format(" (there are: {})", seeds)));
}

Result<std::unique_ptr<Policy>> MakeOrderPolicy(std::string_view name, const Profile& profile) {
  const Ranking* ranking = profile.FindRanking(name);
  if (ranking == nullptr) {
    return NotFound(fmt::format("policy '{0}': the profile has no ranking '{0}'; `espalier rank` adds it", name));
  }
  ESPALIER_RETURN_IF_ERROR(CheckOrder(*ranking, profile.n_layer));
  if (name != "density") {
    return std::unique_ptr<Policy>(std::make_unique<OrderPolicy>(*ranking));
  }
  for (const Ranking& chain : profile.rankings) {
    if (chain.method == name) {
      ESPALIER_RETURN_IF_ERROR(CheckOrder(chain, profile.n_layer));
    }
  }
  return std::unique_ptr<Policy>(std::make_unique<DensityPolicy>(profile));
}

}  // namespace

const std::vector<std::string>& ProfilePolicyNames() {
  static const std::vector<std::string> names = {"table",    "density",  "gsi",      "one-shot",
                                                 "shortgpt", "mha-drop", "ffn-skip", "random"};
  return names;
}

ProfilePolicyOptions ServedLike(const MeasurementSet& set) {
  return {.ablation = set.ablation, .key_type = set.key_type, .value_type = set.value_type};
}

const Archive* ServedArchive(const Profile& profile, const ProfilePolicyOptions& options) {
  const Archive* primary = profile.primary();
  if (primary == nullptr) {
    return nullptr;
  }
  const Ablation ablation = options.ablation.value_or(profile.ablation);
  const std::string means_hash = HashHex(std::as_bytes(std::span(profile.means.values)));
  const auto can_serve = [&](const MeasurementSet& set) {
    return set.tokens_hash == primary->set().tokens_hash && set.ablation == ablation &&
           (ablation == Ablation::kZero || set.means_hash.empty() || set.means_hash == means_hash);
  };
  const auto preference = [&](const Archive& archive) {
    const int64_t rows = archive.CountWholeRows();
    const bool kv_types = (options.key_type.empty() || options.key_type == archive.set().key_type) &&
                          (options.value_type.empty() || options.value_type == archive.set().value_type);
    return std::tuple(rows > 0, kv_types, &archive == primary, rows);
  };
  const Archive* best = nullptr;
  for (const Archive& archive : profile.archives) {
    if (can_serve(archive.set()) && (best == nullptr || preference(archive) > preference(*best))) {
      best = &archive;
    }
  }
  return best;
}

Result<std::unique_ptr<Policy>> MakeProfilePolicy(std::string_view name, const Profile& profile,
                                                  const ProfilePolicyOptions& options) {
  ESPALIER_RETURN_IF_ERROR(CheckFloor(options));
  const std::vector<std::string>& names = ProfilePolicyNames();
  if (std::find(names.begin(), names.end(), name) == names.end()) {
    return InvalidArgument(
        fmt::format("policy {}: expected one of {}", Quote(std::string(name)), fmt::join(names, ", ")));
  }
  auto table = MakeTable(profile, options);
  auto made = name == "table"    ? MakeTablePolicy(profile, options, table)
              : name == "random" ? MakeRandomPolicy(profile, options.seed)
                                 : MakeOrderPolicy(name, profile);
  ESPALIER_RETURN_IF_ERROR(made.status());
  return std::unique_ptr<Policy>(std::make_unique<QualityFloor>(std::move(*made), std::move(table), options.max_loss));
}

Result<std::unique_ptr<Policy>> WithPredictedLoss(std::unique_ptr<Policy> policy, const Profile& profile,
                                                  const ProfilePolicyOptions& options) {
  ESPALIER_RETURN_IF_ERROR(CheckFloor(options));
  return std::unique_ptr<Policy>(
      std::make_unique<QualityFloor>(std::move(policy), MakeTable(profile, options), options.max_loss));
}

}  // namespace espalier
