// Policies: from what is known about memory to a plan that fits it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "model/block.h"
#include "model/footprint.h"
#include "model/plan.h"
#include "model/workload.h"

namespace espalier {

struct Observation {
  const MemoryModel* memory = nullptr;  // REQUIRES: not null; its block_bytes say how many blocks there are
  Workload workload;
  uint64_t limit_bytes = 0;    // on managed + process bytes
  uint64_t process_bytes = 0;  // anonymous memory of the process before the first block was loaded

  int n_layer() const { return static_cast<int>(memory->block_bytes.size() / 2); }
};

// What a policy expects a plan to cost.
struct PredictedLoss {
  double nats = 0;  // KL(dense || plan) per token, on the profile's calibration text
  // True: the archive has measured this very plan. False: an estimate, by the best measured plan that keeps no block
  // more than this one (keeping more rarely hurts).
  bool measured = false;
};

struct Decision {
  Plan plan;
  Footprint footprint;                     // of the plan at the observed workload
  std::optional<PredictedLoss> loss = {};  // empty where nothing has been measured
};

// Pure functions of the observation: no state, safe to call from several threads at once.
class Policy {
 public:
  virtual ~Policy() = default;
  // As in docs and on the command line: "data-free", "static", ...
  virtual const char* name() const = 0;
  // A plan whose peak (staging included) plus process stays within the limit. kOutOfBudget if there is none, naming
  // the smallest limit in bytes that the policy could meet.
  virtual Result<Decision> Decide(const Observation& observation) const = 0;
  // Every block once, in the order in which the policy parts with them. Blocks return in the opposite order.
  virtual std::vector<BlockId> DropOrder(int n_layer) const = 0;
};

// The footprint of `plan`, and whether the observation's limit allows it.
Footprint FootprintOf(const Observation& observation, const Plan& plan);
bool Fits(const Observation& observation, const Footprint& footprint);

// Starts from the dense plan and drops blocks in `order` until it fits, then gives back the largest dropped blocks
// that still fit (of equal ones the last dropped): no dropped block would fit into the slack that is left.
// A plan with everything dropped is legal: it is the minimum that kOutOfBudget names.
// REQUIRES: `order` has every block once.
Result<Decision> DropUntilItFits(const Observation& observation, std::span<const BlockId> order);

// Gives back the largest blocks that still fit; `dropped` by the plan, first to last. REQUIRES: the plan fits.
Decision GiveBackWhatFits(const Observation& observation, PlanFootprint plan, std::span<const BlockId> dropped);

}  // namespace espalier
