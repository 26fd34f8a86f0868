#include "rl/train.h"

#include <algorithm>
#include <random>
#include <utility>

namespace espalier {
namespace {

// Evenly from `first` to `last` as `done` goes from 0 to 1.
double Between(double first, double last, double done) { return first + (last - first) * std::clamp(done, 0.0, 1.0); }

class Training {
 public:
  Training(const TrainingSubject& subject, Reward* reward, const TrainingOptions& options, const QNetwork* initial)
      : subject_(subject),
        options_(options),
        learner_(initial != nullptr
                     ? initial->Clone()
                     : MakeQNetwork(options.network, static_cast<int>(subject.importance.size()), options.dqn.seed),
                 options.dqn),
        environment_({.state = options.network}, subject.importance, reward),
        random_(options.dqn.seed ^ 0x7461736b73ULL) {}

  Result<double> Episode(double done) {
    epsilon_ = Between(options_.first_epsilon, options_.last_epsilon, done / options_.exploring_share);
    learner_.set_learning_rate(options_.dqn.learning_rate * Between(1, options_.last_learning_rate, 2 * done - 1));
    const Task task = DrawTask(*subject_.memory, 0, options_.tasks, &random_);
    EnvironmentStep step = environment_.Reset(task.observation);
    double value = 0;
    for (double weight = 1; !step.terminated; weight *= options_.dqn.gamma) {
      Experience experience;
      experience.state = environment_.state();
      experience.action = learner_.Act(experience.state, environment_.mask(), epsilon_);
      ESPALIER_ASSIGN_OR_RETURN(step, environment_.Step(experience.action));
      experience.reward = step.reward;
      experience.next = environment_.state();
      experience.next_mask = environment_.mask();
      experience.terminated = step.terminated;
      learner_.Remember(std::move(experience));
      td_error_ += learner_.Learn();
      ++updates_;
      value += weight * step.reward;
    }
    return value;
  }

  TrainingProgress Report(int64_t episodes, double returns, int64_t n) {
    TrainingProgress progress;
    progress.episodes = episodes;
    progress.mean_return = returns / static_cast<double>(n);
    progress.td_error = updates_ > 0 ? td_error_ / static_cast<double>(updates_) : 0;
    progress.epsilon = epsilon_;
    td_error_ = 0;
    updates_ = 0;
    return progress;
  }

  const QNetwork& agent() const { return learner_.online(); }
  const QNetwork& target() const { return learner_.target(); }

 private:
  const TrainingSubject& subject_;
  const TrainingOptions& options_;
  DqnLearner learner_;
  PruningEnvironment environment_;
  std::mt19937_64 random_;
  double epsilon_ = 1;
  double td_error_ = 0;
  int64_t updates_ = 0;
};

}  // namespace

TrainingOptions DefaultTraining(StateKind network, bool measured) {
  TrainingOptions options;
  options.network = network;
  if (network == StateKind::kShared) {
    // Every update teaches it about all blocks at once, and costs more.
    options.dqn.batch = 32;
    options.episodes = 10000;
  } else if (measured) {
    options.episodes = 20000;
  } else {
    options.dqn.batch = 256;
    options.episodes = 30000;
    options.last_learning_rate = 0.01;
    options.judged = 100;
    options.judges_target = true;
  }
  options.dqn.gamma = measured ? 1 : 0.99;
  return options;
}

Result<std::unique_ptr<QNetwork>> TrainAgent(const TrainingSubject& subject, Reward* reward,
                                             const TrainingOptions& options, const QNetwork* initial,
                                             const std::atomic<bool>* stop,
                                             const std::function<void(const TrainingProgress&)>& progress) {
  Training training(subject, reward, options, initial);
  std::unique_ptr<QNetwork> best;
  double least_gap = 0;
  const auto judge = [&](const QNetwork& agent) -> Status {
    ESPALIER_ASSIGN_OR_RETURN(const double gap, options.gap(agent));
    if (best == nullptr || gap < least_gap) {
      least_gap = gap;
      best = agent.Clone();
    }
    return Status::Ok();
  };
  const int64_t judged_every = std::max<int64_t>(1, options.episodes / options.judged);
  const int64_t kept_every = std::max<int64_t>(1, options.episodes / 10);
  const int64_t chunk = std::max<int64_t>(1, options.episodes / 100);
  double returns = 0;
  int64_t n = 0;
  for (int64_t episode = options.first_episode; episode < options.episodes; ++episode) {
    const bool stopped = stop != nullptr && stop->load(std::memory_order_relaxed);
    if (options.checkpoint && episode > options.first_episode && (stopped || episode % kept_every == 0)) {
      ESPALIER_RETURN_IF_ERROR(options.checkpoint(training.agent(), episode));
    }
    if (stopped) {
      return Aborted("training was stopped");
    }
    ESPALIER_ASSIGN_OR_RETURN(const double value,
                              training.Episode(static_cast<double>(episode) / static_cast<double>(options.episodes)));
    returns += value;
    ++n;
    if (progress && (episode + 1) % chunk == 0) {
      progress(training.Report(episode + 1, returns, n));
      returns = 0;
      n = 0;
    }
    const int64_t left = options.episodes - episode - 1;
    if (options.gap && left % judged_every == 0 && 2 * left < options.episodes) {
      ESPALIER_RETURN_IF_ERROR(judge(training.agent()));
      if (options.judges_target) {
        ESPALIER_RETURN_IF_ERROR(judge(training.target()));
      }
    }
  }
  return best != nullptr ? std::move(best) : training.agent().Clone();
}

Result<double> Play(const QNetwork& network, PruningEnvironment* environment, const Observation& task, double gamma) {
  EnvironmentStep step = environment->Reset(task);
  QNetwork::LastState last;
  double value = 0;
  for (double weight = 1; !step.terminated; weight *= gamma) {
    const auto& values = network.Follow(environment->state(), environment->n_action(), &last);
    const int action = MaskedArgmax(values, environment->mask());
    ESPALIER_ASSIGN_OR_RETURN(step, environment->Step(action));
    value += weight * step.reward;
  }
  return value;
}

}  // namespace espalier
