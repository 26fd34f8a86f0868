// Trains RAP's agent for one model: on the paper's reward, or on measured losses.
//
// measured: the reward of an episode is the loss of the plan it ends with. The archive has it, or a surrogate that was
// fitted to the archive guesses it (surrogate/loss_surrogate.h). An agent looks for plans whose guesses are too good.
// So where an evaluator is at hand, training goes in rounds: what the agent would serve is measured, joins the archive
// and the surrogate, and the next round begins with the agent that there is. In the last round, which nothing checks,
// guesses count as worse than they are by their uncertainty.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "eval/plan_evaluator.h"
#include "model/footprint.h"
#include "profile/profile.h"
#include "rl/train.h"

namespace espalier {

// Called when the profile's agent is another one than before: now and then during a round, and after it.
using KeepProfile = std::function<Status()>;

struct RapTrainingOptions {
  std::string reward = "measured";  // "paper", "measured"
  TrainingOptions training;         // of one round: DefaultTraining, as a rule
  int rounds = 1;                   // measured, with an evaluator; else one
  int plans_per_round = 40;         // measured at most between two rounds
  double caution = 2;               // in the last round a guess counts as worse by so many standard deviations
  double minutes = 0;               // no further round begins after so long; 0: no limit
  // Of another model: what training begins with, in place of an agent of the profile's own that is finished. With no
  // episodes it is served as it is.
  std::optional<Agent> initial = {};
  // That gaps are averaged over, drawn from the training distribution; and as many others that the best of several
  // states of the agent is chosen by.
  int judged_tasks = 200;
  KeepProfile keep = {};
};

// The agent judged on tasks it was not trained on.
struct RapGap {
  int64_t episodes = 0;  // trained on so far
  double seconds = 0;    // of training so far, measurements included
  // paper: 1 - the agent's return over the optimum's (rl/exact.h), in the mean.
  // measured: geometric mean of the loss of what the agent serves over the least loss in the archive of a plan that
  // fits, less 1; guessed as in that round where it was not measured.
  double mean = 0;
  double worst = 0;
};

// The gap of another policy of the profile on the same tasks; measured: likewise over the least loss in the archive.
struct RivalGap {
  std::string policy;
  double mean = 0;
  double worst = 0;
};

struct RapTrainingReport {
  std::vector<TrainingProgress> curve;  // episodes counted over all rounds
  std::vector<RapGap> gaps;             // after each round
  std::vector<RivalGap> rivals;         // measured only: gsi, density
  int64_t plans_measured = 0;
  double surrogate_seconds = 0;
  double episode_seconds = 0;
  double measuring_seconds = 0;
  double seconds = 0;
};

// What happens, as it happens. `done` over all rounds, 0 to 1.
struct RapTrainingNews {
  std::string phase;
  double done = 0;
  std::string detail;
};

// Puts the agent into `profile`: after each round the best, before that the latest. `evaluator` may be nullptr; where
// it is not, its archive is the profile's. `memory`: of an engine that would serve the model, for any number of cells.
// An agent of the same network, reward and seed that the profile has is trained further; where its training was
// interrupted, for the episodes that are left of it (its replay buffer begins empty).
// kNotFound if the profile lacks what is needed (gsi's scores; measured: an archive); kAborted as TrainAgent.
Result<RapTrainingReport> TrainRap(const MemoryModel& memory, const RapTrainingOptions& options, Profile* profile,
                                   PlanEvaluator* evaluator, const std::atomic<bool>* stop = nullptr,
                                   const std::function<void(const RapTrainingNews&)>& news = {});

}  // namespace espalier
