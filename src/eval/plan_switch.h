// What a change of plan in mid-text costs: `espalier eval --switch-at TOKEN`.
//
// In every window the first TOKEN tokens are prefilled under one plan, the engine changes to the other in flight
// (weights and KV really leave and return), and the rest is scored. Layers keep the K/V rows that were computed under
// the first plan; the figures say what that is worth against a prefix prefilled afresh under the second plan.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "eval/statistics.h"
#include "eval/subject.h"
#include "eval/windows.h"
#include "runtime/engine.h"

namespace espalier {

// The tokens after the switch, scored in one way.
struct SwitchScore {
  Estimate mean_nll;
  Estimate perplexity;
  // Mean over tokens of nll - nll of the way it is measured against: dense_to_plan against fresh_plan, the two
  // plan_to_dense against dense. 0 for dense and fresh_plan themselves.
  Estimate excess_nll;
};

// Means over the windows of one direction's transitions.
struct SwitchCost {
  int64_t transitions = 0;
  double mean_ms = 0;
  double max_ms = 0;
  double released_bytes = 0;  // weights and KV given back
  double loaded_bytes = 0;    // weights brought in
  uint64_t peak_bytes = 0;    // managed bytes at the worst moment of all
};

struct PlanSwitchResult {
  EvalSubject subject;  // tokens_scored: per way
  int64_t switch_at = 0;
  SwitchScore dense;          // never switched
  SwitchScore fresh_plan;     // the whole window under the plan
  SwitchScore dense_to_plan;  // dense prefix, then the plan
  SwitchScore plan_to_dense;  // prefix under the plan, then dense: attention blocks that returned are still skipped
  SwitchScore plan_to_dense_reprefilled;  // the same after Engine::Reprefill
  double skipped_blocks = 0;              // attention blocks that plan_to_dense had to skip
  double reprefill_ms = 0;                // mean
  SwitchCost to_plan;
  SwitchCost to_dense;
  double elapsed_ms = 0;
};

// Fails with kInvalidArgument if switch_at leaves nothing before or after it in a window, if the engine's resident plan
// is not dense, or if `plan` is of another model. The engine is dense again afterwards (after an error: if it can be
// loaded). REQUIRES: the engine has no sequences.
Result<PlanSwitchResult> MeasurePlanSwitch(Engine* engine, const Plan& plan, const Windows& windows, int64_t switch_at,
                                           const EvalProgress& progress = {});

}  // namespace espalier
