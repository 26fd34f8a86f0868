// How long a decode step takes under a plan: measured under a few plans, predicted for all others.
//
// A step reads the weights and the KV rows of every block that is kept, one block after the other: its time is a
// constant and a sum over kept blocks, attention and FFN each by their bytes. Three numbers are fitted to nine plans.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "model/footprint.h"
#include "model/plan.h"
#include "model/workload.h"
#include "runtime/engine.h"

namespace espalier {

// One step: one more token for each of the workload's sequences, each as long as its longest.
struct TimedPlan {
  Plan plan;
  std::vector<double> ms;  // by repetition
};

// Steps under the plan that is in force. The sequences are made anew, and removed afterwards. REQUIRES: the engine has
// no sequences, and cells for the workload.
Result<std::vector<double>> TimeDecodeSteps(Engine& engine, const Workload& workload, int repetitions);

// Thread rule: const calls from any thread.
class DecodeLatency {
 public:
  // With all, half and none of the blocks of each kind, in turns. Leaves the engine with another plan. As
  // TimeDecodeSteps.
  static Result<DecodeLatency> Measure(Engine& engine, const Workload& workload, double confidence = 0.95,
                                       int repetitions = 9);

  // From steps that were timed. REQUIRES: under plans enough to tell the three numbers.
  DecodeLatency(const MemoryModel& memory, std::span<const TimedPlan> timed, double confidence);

  // The typical step.
  double MedianMs(const Plan& plan) const;
  // What a step stays below with the confidence: a share above the median that so many of the timed steps stayed below
  // (conformal; 0 above it for none).
  double UpperMs(const Plan& plan) const { return margin_ * MedianMs(plan); }
  double margin() const { return margin_; }

 private:
  // Of a plan: 1, kept attention blocks, kept FFN blocks, each weighed by its bytes over the mean of its kind.
  std::vector<double> FeaturesOf(const Plan& plan) const;

  std::vector<double> weight_;  // by block
  double constant_ms_ = 0;
  double attention_ms_ = 0;  // for a mean attention block
  double ffn_ms_ = 0;
  double margin_ = 1;
};

}  // namespace espalier
