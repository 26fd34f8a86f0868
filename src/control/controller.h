// The controller: budget -> policy -> plan -> engine, between two tokens.
//
// Memory that has to go goes at once. Memory that may come back is filled block by block, a few per step, so that no
// single token waits for all of it.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "base/status.h"
#include "memory/account.h"
#include "model/plan.h"
#include "policy/policy.h"
#include "runtime/engine.h"

namespace espalier {

struct ControllerOptions {
  Workload workload;           // what the budget has to leave room for
  uint64_t process_bytes = 0;  // anonymous memory of the process before the first block was loaded
  uint64_t limit_bytes = 0;    // the limit under which the engine was created; on managed + process bytes
  int loads_per_step = 1;      // blocks that one Load() brings back at most
};

// What happened to memory, told to people and logs.
struct TransitionEvent {
  enum class Reason {
    kBudget,     // a new limit: what has to go went
    kLoad,       // blocks came back
    kReprefill,  // a running sequence was computed again, to use attention blocks that had come back
    kWorkload,   // the limit stayed, but what it has to leave room for changed
  };
  Reason reason = Reason::kBudget;
  int64_t at_token = 0;  // tokens generated before it
  uint64_t limit_bytes = 0;
  Plan plan_before;
  Plan plan_after;
  std::vector<BlockId> pending;  // blocks that are still to be loaded
  // Of the plan that was decided on for this limit, which is in force once nothing is pending; empty where the policy
  // knows nothing about it, or has not been asked yet.
  std::optional<PredictedLoss> loss;
  // Managed bytes at rest, predicted from plan and used cells, beside the account taken at the same moment.
  uint64_t predicted_bytes_before = 0;
  uint64_t predicted_bytes_after = 0;
  MemoryAccount before;
  MemoryAccount after;
  Transition moved;
  double ms = 0;  // of the change itself, the measurements around it left out
};
const char* ReasonName(TransitionEvent::Reason reason);  // "budget", "load", "reprefill", "workload"

// Thread rule: as the engine's, one thread at a time.
class Controller {
 public:
  // `engine` and `policy` must outlive the controller.
  Controller(Engine& engine, const Policy& policy, const ControllerOptions& options);

  // A new limit. Returns when everything that has to go has been released; what may come back is pending.
  // kOutOfBudget if the policy has no plan for it: nothing has changed then.
  Result<TransitionEvent> SetLimit(uint64_t limit_bytes);

  // A new limit, a new workload, or both. As SetLimit, but where no block leaves it takes no
  // measurements and returns nothing; what comes back is told by Load.
  Result<std::optional<TransitionEvent>> Retarget(uint64_t limit_bytes, const Workload& workload);
  // What Retarget would decide. Changes nothing.
  Result<Decision> Decide(uint64_t limit_bytes, const Workload& workload) const;
  // Drops every block, whatever the policy says: for a limit that it has no plan for while nothing is in flight.
  Result<std::optional<TransitionEvent>> DropEverything(uint64_t limit_bytes);
  // Those that hold KV now, for the predictions of events. At first sequence 0 alone.
  void SetSequences(std::vector<SequenceId> sequences) { sequences_ = std::move(sequences); }

  // Brings back the next pending blocks, those first that the policy parts with last.
  // REQUIRES: loading().
  Result<TransitionEvent> Load();

  bool loading() const { return !pending_.empty(); }
  const std::vector<BlockId>& pending() const { return pending_; }
  uint64_t limit_bytes() const { return options_.limit_bytes; }
  uint64_t process_bytes() const { return options_.process_bytes; }
  const Workload& workload() const { return options_.workload; }
  // Of the plan that is in force once nothing is pending, as TransitionEvent::loss.
  const std::optional<PredictedLoss>& loss() const { return loss_; }

  // Computes all rows of `sequence` again (Engine::Reprefill), for the sake of attention blocks that came back.
  Result<TransitionEvent> Reprefill(SequenceId sequence);

 private:
  // The blocks of `wanted` that are not in `resident`, in the order of loading.
  std::vector<BlockId> Missing(const Plan& resident, const Plan& wanted) const;
  // What is decided is what is wanted from now on; returns what of it is resident already.
  Plan TakeOn(const Decision& decision, uint64_t limit_bytes, const Workload& workload);
  // Runs `change` (Result<Transition>()) between two measurements and tells what it did.
  template <class Change>
  Result<TransitionEvent> Observe(TransitionEvent::Reason reason, Change change);

  Engine& engine_;
  const Policy& policy_;
  ControllerOptions options_;
  std::vector<BlockId> pending_;       // in the order of loading
  std::optional<PredictedLoss> loss_;  // of the last decision
  std::vector<SequenceId> sequences_ = {0};
};

}  // namespace espalier
