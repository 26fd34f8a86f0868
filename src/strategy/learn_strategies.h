// UniCuCo's loop (arXiv 2505.12216): fit the surrogate to what is measured; train StratNet through it; let StratNet
// propose plans for a spread of requests; measure those that are expected to add most hypervolume; and again.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/status.h"
#include "eval/plan_evaluator.h"
#include "model/footprint.h"
#include "strategy/train_strat_net.h"

namespace espalier {

struct StrategyLoopOptions {
  int evaluations = 550;  // plans measured at most, those that a profile without any needs first included
  int plans_per_round = 5;
  int preferences = 64;  // for each of six workloads, that StratNet proposes plans for
  bool refine = true;    // proposals are held against their neighbours (refine.h)
  // A proposal is hoped to lose what is guessed less so many standard deviations. Where no proposal is worth a try, the
  // next.
  std::vector<double> optimism = {0.1, 1, 2, 4};
  StratTrainingOptions training;
};

// After each round.
struct StrategyRound {
  int64_t evaluations = 0;  // plans measured by the loop so far
  // Mean over the workloads of the area that the archive dominates, in units of Objectives, from the point (1, 1).
  double hypervolume = 0;
  // Of the plans that this round measured: root of the mean squared difference between ln(loss) guessed and measured.
  // 0 where none was measured.
  double surrogate_error = 0;
  double tchebycheff = 0;  // mean value at the end of StratNet's training
  double seconds = 0;      // since the beginning
};

struct StrategyReport {
  std::vector<StrategyRound> rounds;
  double worst_loss = 0;   // nats per token without any block: what Objectives count in
  bool exhausted = false;  // StratNet proposed nothing any more, in two rounds, that promised to add anything
};

// Trains `net` and measures through `evaluator`, whose archive grows. `memory`: of an engine that would serve the
// model, for any number of cells. An archive without enough plans gets the loss of every single block first, of none,
// and of what one would drop by those losses.
// What the evaluator returns where it fails (kAborted where it was stopped).
Result<StrategyReport> LearnStrategies(PlanEvaluator* evaluator, const MemoryModel& memory,
                                       const StrategyLoopOptions& options, StratNet* net,
                                       const std::function<void(const StrategyRound&)>& progress = {});

}  // namespace espalier
