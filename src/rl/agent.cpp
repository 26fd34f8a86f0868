#include "rl/agent.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "model/quote.h"
#include "rl/environment.h"

namespace espalier {
namespace {

// Agents decide; nobody pays them for it.
class NoReward final : public Reward {
 public:
  const char* name() const override { return "none"; }
  void Begin(const Observation&) override {}
  Result<double> Pay(const Plan&, bool) override { return 0.0; }
};

}  // namespace

Agent RecordOf(const QNetwork& network, std::string reward, uint64_t seed, int64_t episodes, std::string trained_on) {
  const Eigen::VectorXf& parameters = network.parameters();
  return {.network = StateKindName(network.kind()),
          .reward = std::move(reward),
          .seed = seed,
          .state_version = kStateVersion,
          .episodes = episodes,
          .trained_on = std::move(trained_on),
          .parameters = {parameters.data(), parameters.data() + parameters.size()}};
}

Result<std::unique_ptr<QNetwork>> NetworkOf(const Agent& agent, int n_block) {
  if (agent.state_version != kStateVersion) {
    return Unsupported(fmt::format(
        "the profile's agent ({}, {}) sees states of version {}, this Espalier makes version {}; train it again",
        Printable(agent.network, 32), Printable(agent.reward, 32), agent.state_version, kStateVersion));
  }
  ESPALIER_ASSIGN_OR_RETURN(const StateKind kind, ParseStateKind(agent.network));
  auto network = MakeQNetwork(kind, n_block, 0);
  if (static_cast<Eigen::Index>(agent.parameters.size()) != network->n_parameter()) {
    return InvalidArgument(
        fmt::format("the profile's agent ({}, {}): expected {} parameters for a model of {} blocks, found {}",
                    Printable(agent.network, 32), Printable(agent.reward, 32), network->n_parameter(), n_block,
                    agent.parameters.size()));
  }
  network->set_parameters(
      Eigen::Map<const Eigen::VectorXf>(agent.parameters.data(), static_cast<Eigen::Index>(agent.parameters.size())));
  return network;
}

Result<std::vector<double>> ImportanceOf(const Profile& profile) {
  const Ranking* gsi = profile.FindRanking("gsi");
  if (gsi == nullptr || gsi->score.size() != static_cast<size_t>(2 * profile.n_layer)) {
    return NotFound("the profile has no ranking 'gsi', whose scores agents see; `espalier rank` adds it");
  }
  std::vector<double> importance = gsi->score;
  for (double& score : importance) {
    score = std::isfinite(score) ? std::max(0.0, score) : 0;
  }
  return importance;
}

Result<const Agent*> FindAgent(const Profile& profile, const std::string& reward, uint64_t seed) {
  for (const char* wanted : {"measured", "paper"}) {
    const Agent* found = nullptr;
    for (const Agent& agent : profile.agents) {
      const bool fits = agent.reward == wanted && (reward.empty() || reward == wanted);
      if (fits && (found == nullptr || (agent.seed == seed && found->seed != seed))) {
        found = &agent;
      }
    }
    if (found != nullptr) {
      return found;
    }
  }
  return NotFound(fmt::format("the profile has no agent{0}; `espalier train rap{1}` adds it",
                              reward.empty() ? "" : fmt::format(" of reward '{}'", reward),
                              reward.empty() ? "" : " --reward " + reward));
}

Result<Decision> RapPolicy::Decide(const Observation& observation) const {
  NoReward reward;
  PruningEnvironment environment({.state = network_->kind()}, importance_, &reward);
  EnvironmentStep step = environment.Reset(observation);
  while (!step.terminated) {
    const int action = MaskedArgmax(network_->Forward(step.state).col(0), environment.mask());
    ESPALIER_ASSIGN_OR_RETURN(step, environment.Step(action));
  }
  // What it did not drop goes last, should anything of it have to go.
  std::vector<BlockId> order = environment.dropped();
  for (int b = 0; b < environment.plan().n_block(); ++b) {
    if (environment.plan().kept({b})) {
      order.push_back({b});
    }
  }
  return DropUntilItFits(observation, order);
}

std::vector<BlockId> RapPolicy::DropOrder(int n_layer) const {
  ESPALIER_CHECK(importance_.size() == 2 * static_cast<size_t>(n_layer));
  std::vector<BlockId> order;
  for (int b = 0; b < 2 * n_layer; ++b) {
    order.push_back({b});
  }
  std::stable_sort(order.begin(), order.end(), [&](BlockId a, BlockId b) {
    return importance_[static_cast<size_t>(a.index)] < importance_[static_cast<size_t>(b.index)];
  });
  return order;
}

const std::vector<std::string>& RapPolicyNames() {
  static const std::vector<std::string> names = {"rap", "rap-measured", "rap-paper"};
  return names;
}

Result<std::unique_ptr<Policy>> MakeRapPolicy(const std::string& name, const Profile& profile, uint64_t seed) {
  const auto& names = RapPolicyNames();
  if (std::find(names.begin(), names.end(), name) == names.end()) {
    return InvalidArgument(fmt::format("policy {}: expected one of {}", Quote(name), fmt::join(names, ", ")));
  }
  ESPALIER_ASSIGN_OR_RETURN(const Agent* agent, FindAgent(profile, name == "rap" ? "" : name.substr(4), seed));
  ESPALIER_ASSIGN_OR_RETURN(auto network, NetworkOf(*agent, 2 * profile.n_layer));
  ESPALIER_ASSIGN_OR_RETURN(std::vector<double> importance, ImportanceOf(profile));
  return std::unique_ptr<Policy>(std::make_unique<RapPolicy>(name, std::move(network), std::move(importance)));
}

}  // namespace espalier
