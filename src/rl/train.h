// Training an agent: episodes on tasks drawn from a distribution, epsilon and learning rate falling along the way.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/status.h"
#include "rl/dqn.h"
#include "rl/environment.h"
#include "rl/task.h"

namespace espalier {

// How bad an agent is, on tasks that it is not trained on: less is better.
using AgentGap = std::function<Result<double>(const QNetwork&)>;
// To be kept against a loss: the network after `episodes` of the options' episodes.
using AgentCheckpoint = std::function<Status(const QNetwork&, int64_t episodes)>;

struct TrainingOptions {
  StateKind network = StateKind::kPaper;
  DqnOptions dqn;
  TaskDistribution tasks;
  int64_t episodes = 10000;
  // Goes on after so many of them: with the parameters and at the rates of that time, but without its experiences.
  int64_t first_episode = 0;
  // Epsilon falls evenly from the first to the last over this share of the episodes, and stays there.
  double first_epsilon = 1;
  double last_epsilon = 0.02;
  double exploring_share = 0.3;
  // The learning rate falls evenly to this share of itself, from half-way on.
  double last_learning_rate = 0.05;
  // Where it is given, the agent is the best of those there are in the second half of the episodes, which are judged so
  // many times in all of them: what a greedy agent does goes up and down from update to update.
  AgentGap gap = {};
  int judged = 40;
  // The target network is judged as well: it follows the agent slowly, and so is an average over its last updates.
  bool judges_target = false;
  AgentCheckpoint checkpoint =
      {};  // called after each tenth of the episodes but the last, and when training is stopped
};

// What came out well on the reference models. measured: paid by loss (MeasuredReward), which is not discounted.
// The paper's reward adds up to about 10, of which the choice between two actions changes little and now and then a
// whole step: it takes large batches to tell that from noise. Of four times the size they brought the gap to the
// optimum from 2.1 % to 1.7 % (five seeds, 16 layers in Q4_K_M; docs/results/rap.md) in half as many episodes. What did
// not: more episodes, and potential-based shaping by the return still to come.
TrainingOptions DefaultTraining(StateKind network, bool measured);

struct TrainingProgress {
  int64_t episodes = 0;
  double mean_return = 0;  // discounted, over the episodes since the last call
  double td_error = 0;     // mean squared, likewise
  double epsilon = 0;
};

// What one agent learns from one model. Thread rule: one thread at a time.
struct TrainingSubject {
  const MemoryModel* memory = nullptr;  // REQUIRES: outlives the training
  std::vector<double> importance;       // by block
};

// Begins with the parameters of `initial` where there is one (of the options' network), else with those of the seed.
// kAborted once `*stop` is true; what the reward, the gap or the checkpoint returns where it fails. `progress` after
// every hundredth of the episodes. The same options, subject and seed: the same agent.
Result<std::unique_ptr<QNetwork>> TrainAgent(const TrainingSubject& subject, Reward* reward,
                                             const TrainingOptions& options, const QNetwork* initial = nullptr,
                                             const std::atomic<bool>* stop = nullptr,
                                             const std::function<void(const TrainingProgress&)>& progress = {});

// The discounted return of the agent's episode on `task`, without exploring.
Result<double> Play(const QNetwork& network, PruningEnvironment* environment, const Observation& task, double gamma);

}  // namespace espalier
