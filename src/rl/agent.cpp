#include "rl/agent.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "model/quote.h"
#include "rl/dqn.h"
#include "rl/environment.h"
#include "rl/exact.h"

namespace espalier {
namespace {

constexpr char kEither[] = "rap";

// Agents decide; nobody pays them for it.
class NoReward final : public Reward {
 public:
  const char* name() const override { return "none"; }
  void Begin(const Observation&) override {}
  Result<double> Pay(const Plan&, bool) override { return 0.0; }
};

std::vector<BlockId> ByImportance(const std::vector<double>& importance) {
  std::vector<BlockId> order;
  for (size_t b = 0; b < importance.size(); ++b) {
    order.push_back({static_cast<int>(b)});
  }
  std::stable_sort(order.begin(), order.end(), [&](BlockId a, BlockId b) {
    return importance[static_cast<size_t>(a.index)] < importance[static_cast<size_t>(b.index)];
  });
  return order;
}

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

RapPolicy::RapPolicy(std::string name, std::unique_ptr<QNetwork> network, std::vector<double> importance)
    : name_(std::move(name)),
      network_(std::move(network)),
      importance_(std::move(importance)),
      marks_(std::make_shared<const BlockMarks>(importance_)) {
  network_->Follow(StateBeforeTasks(network_->kind(), *marks_), static_cast<Eigen::Index>(importance_.size()),
                   &before_tasks_);
}

Result<Decision> RapPolicy::Decide(const Observation& observation) const {
  NoReward reward;
  PruningEnvironment environment({.state = network_->kind()}, marks_, &reward);
  QNetwork::LastState last = before_tasks_;
  EnvironmentStep step = environment.Reset(observation);
  while (!step.terminated) {
    // STOP is never allowed before the end.
    const auto& values = network_->Follow(environment.state(), environment.stop_action(), &last);
    const int action = MaskedArgmax(values, environment.mask());
    ESPALIER_ASSIGN_OR_RETURN(step, environment.Step(action));
  }
  if (!environment.fits()) {
    return DropUntilItFits(observation, environment.dropped());  // all of them: says what the minimum is
  }
  return GiveBackWhatFits(observation, environment.plan_footprint(), environment.dropped());
}

std::vector<BlockId> RapPolicy::DropOrder(int n_layer) const {
  ESPALIER_CHECK(importance_.size() == 2 * static_cast<size_t>(n_layer));
  return ByImportance(importance_);
}

Result<Decision> ExactPaperPolicy::Decide(const Observation& observation) const {
  ESPALIER_ASSIGN_OR_RETURN(
      const BestEpisode best,
      BestAdditiveEpisode(observation, BlockValues(observation, importance_), DqnOptions().gamma));
  PlanFootprint plan(*observation.memory, observation.workload);
  for (const BlockId block : best.dropped) {
    plan.Drop(block);
  }
  return GiveBackWhatFits(observation, std::move(plan), best.dropped);
}

std::vector<BlockId> ExactPaperPolicy::DropOrder(int n_layer) const {
  ESPALIER_CHECK(importance_.size() == 2 * static_cast<size_t>(n_layer));
  return ByImportance(importance_);
}

const std::vector<std::string>& RapPolicyNames() {
  static const std::vector<std::string> names = {kEither, PolicyOfReward("measured"), PolicyOfReward("paper"),
                                                 ExactPaperPolicy::kName};
  return names;
}

std::string PolicyOfReward(const std::string& reward) { return kEither + ("-" + reward); }

Result<std::unique_ptr<Policy>> MakeRapPolicy(const std::string& name, const Profile& profile, uint64_t seed) {
  const auto& names = RapPolicyNames();
  if (std::find(names.begin(), names.end(), name) == names.end()) {
    return InvalidArgument(fmt::format("policy {}: expected one of {}", Quote(name), fmt::join(names, ", ")));
  }
  if (name == ExactPaperPolicy::kName) {
    ESPALIER_ASSIGN_OR_RETURN(std::vector<double> importance, ImportanceOf(profile));
    return std::unique_ptr<Policy>(std::make_unique<ExactPaperPolicy>(std::move(importance)));
  }
  const auto taught = [&](const char* reward) { return name == PolicyOfReward(reward); };
  const char* reward = taught("measured") ? "measured" : taught("paper") ? "paper" : "";
  ESPALIER_ASSIGN_OR_RETURN(const Agent* agent, FindAgent(profile, reward, seed));
  ESPALIER_ASSIGN_OR_RETURN(auto network, NetworkOf(*agent, 2 * profile.n_layer));
  ESPALIER_ASSIGN_OR_RETURN(std::vector<double> importance, ImportanceOf(profile));
  return std::unique_ptr<Policy>(std::make_unique<RapPolicy>(name, std::move(network), std::move(importance)));
}

}  // namespace espalier
