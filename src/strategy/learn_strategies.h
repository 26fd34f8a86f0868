// UniCuCo's loop (arXiv 2505.12216): fit the surrogate to what is measured; train StratNet through it; let StratNet
// propose plans for a spread of requests; measure those that are expected to add most hypervolume; and again.
//
// The paper begins with plans at random, we with a greedy search (importance/gsi.h): how much less blocks cost together
// than what they cost alone adds up to cannot be guessed from plans elsewhere, and a loop that begins with single
// blocks settles around other plans, which lose more.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "base/status.h"
#include "eval/plan_evaluator.h"
#include "model/footprint.h"
#include "profile/profile.h"
#include "strategy/train_strat_net.h"

namespace espalier {

struct StrategyLoopOptions {
  // Plans measured at most, those that a profile without any needs first included. A part of the windows counts as that
  // share of a plan, and what the archive has as nothing.
  int evaluations = 400;
  // The greedy search ends when it has taken this share of them, at the latest.
  double greedy_share = 0.6;
  // The order that it ended with before, where it did.
  std::vector<BlockId> known_greedy = {};
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
  bool greedy = false;      // of the greedy search at the beginning: StratNet has not learned anything yet
  int64_t evaluations = 0;  // so far, rounded up
  // Mean over the workloads of the area that the archive dominates, in units of Objectives, from the point (1, 1).
  double hypervolume = 0;
  // Of the plans that this round measured: root of the mean squared difference between ln(loss) guessed and measured.
  // 0 where none was measured, or none guessed.
  double surrogate_error = 0;
  double tchebycheff = 0;  // mean value at the end of StratNet's training
  double seconds = 0;      // since the beginning
};

struct StrategyReport {
  std::vector<StrategyRound> rounds;
  // Floating-point work spent, bounds included, in dense plans computed whole.
  double work = 0;
  double worst_loss = 0;          // nats per token without any block: what Objectives count in
  std::optional<Ranking> greedy;  // "gsi", where that search went to its end
  bool exhausted = false;         // StratNet proposed nothing any more, in two rounds, that promised to add anything
};

// Trains `net` and measures through `evaluator`, whose archive grows. `memory`: of an engine that would serve the
// model, for any number of cells.
// What the evaluator returns where it fails (kAborted where it was stopped).
Result<StrategyReport> LearnStrategies(PlanEvaluator* evaluator, const MemoryModel& memory,
                                       const StrategyLoopOptions& options, StratNet* net,
                                       const std::function<void(const StrategyRound&)>& progress = {});

}  // namespace espalier
