#include "strategy/strat_policy.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "base/check.h"
#include "strategy/strategy_plans.h"

namespace espalier {
namespace {

constexpr char kTaughtBy[] = "tchebycheff";
constexpr int kPreferences = 64;

}  // namespace

Agent RecordOf(const StratNet& net, uint64_t seed, int64_t evaluations, std::string trained_on) {
  const Eigen::VectorXf& parameters = net.parameters();
  return {.network = kStratNetwork,
          .reward = kTaughtBy,
          .seed = seed,
          .state_version = kStratInputVersion,
          .episodes = evaluations,
          .planned = evaluations,
          .trained_on = std::move(trained_on),
          .parameters = {parameters.data(), parameters.data() + parameters.size()}};
}

Result<const Agent*> FindStratRecord(const Profile& profile, std::optional<uint64_t> seed) {
  std::vector<uint64_t> seeds;
  for (const Agent& agent : profile.agents) {
    if (agent.network == kStratNetwork) {
      if (!seed || agent.seed == *seed) {
        return &agent;
      }
      seeds.push_back(agent.seed);
    }
  }
  if (seeds.empty()) {
    return NotFound("the profile has no StratNet; `espalier train stratnet` adds it");
  }
  return NotFound(fmt::format("the profile has no StratNet of seed {}; there are: {}", *seed, fmt::join(seeds, ", ")));
}

Result<StratNet> StratNetOf(const Agent& record, int n_block) {
  if (record.state_version != kStratInputVersion) {
    return Unsupported(fmt::format(
        "the profile's StratNet sees requests of version {}, this Espalier makes version {}; train it again",
        record.state_version, kStratInputVersion));
  }
  StratNet net(n_block, 0);
  if (record.parameters.size() != static_cast<size_t>(net.parameters().size())) {
    return InvalidArgument(
        fmt::format("the profile's StratNet: expected {} parameters for a model of {} blocks, found {}",
                    net.parameters().size(), net.n_block(), record.parameters.size()));
  }
  net.set_parameters(
      Eigen::Map<const Eigen::VectorXf>(record.parameters.data(), static_cast<Eigen::Index>(record.parameters.size())));
  return net;
}

Result<Decision> StratPolicy::Decide(const Observation& observation) const {
  ESPALIER_ASSIGN_OR_RETURN(const std::vector<Decision> decisions, PlansThatFit(net_, observation, kPreferences));
  std::vector<Plan> plans;
  for (const Decision& decision : decisions) {
    plans.push_back(decision.plan);
  }
  const std::vector<double> guesses = surrogate_.LogMeans(plans);
  size_t best = 0;
  double least = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < plans.size(); ++i) {
    const auto known = measured_.Predict(plans[i]);
    const double loss = known && known->measured ? std::log(known->nats + LossSurrogate::kFloor) : guesses[i];
    if (loss < least) {
      least = loss;
      best = i;
    }
  }
  return decisions[best];
}

std::vector<BlockId> StratPolicy::DropOrder(int n_layer) const {
  ESPALIER_CHECK(net_.n_block() == 2 * n_layer);
  const StratInput even = {{0.5}, 1};
  return DropOrderOf(net_.Forward(std::span(&even, 1)).col(0));
}

Result<std::unique_ptr<Policy>> MakeStratPolicy(const Profile& profile, const ProfilePolicyOptions& options) {
  // Policies that have no instance of a seed serve with another: the seeds of `compare` are those of some.
  auto record = FindStratRecord(profile, options.seed);
  if (!record.ok()) {
    ESPALIER_ASSIGN_OR_RETURN(record, FindStratRecord(profile, std::nullopt));
  }
  ESPALIER_ASSIGN_OR_RETURN(StratNet net, StratNetOf(**record, 2 * profile.n_layer));
  const Archive* archive = ServedArchive(profile, options);
  if (archive == nullptr) {
    return NotFound("the profile has no measured plans for StratNet to choose by; `espalier rank` measures them");
  }
  ESPALIER_ASSIGN_OR_RETURN(LossSurrogate surrogate, LossSurrogate::Fit(*archive, profile.n_layer));
  return std::unique_ptr<Policy>(
      std::make_unique<StratPolicy>(std::move(net), std::move(surrogate), LossTable(archive, profile.n_layer)));
}

}  // namespace espalier
