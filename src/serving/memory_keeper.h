// Keeps memory below the limit while requests are in flight: reads the limit, steers the controller, and decides what
// gives way. The ladder, gentlest first: nothing grows; KV of finished requests goes; blocks go, down to the policy's
// floor; the youngest requests give their KV up and wait. Nobody is served below the floor: if even a single request
// cannot be, everything waits, and all blocks leave if the limit asks for it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "control/controller.h"
#include "runtime/engine.h"
#include "serving/engine_loop.h"
#include "serving/events.h"
#include "serving/limit_hysteresis.h"
#include "serving/limit_watch.h"
#include "serving/recent_workloads.h"

namespace espalier {

// Those who hold KV, as far as the keeper has to know them; KvTenancy implements it.
class KvTenants {
 public:
  virtual ~KvTenants() = default;
  // What the requests in flight may come to hold.
  virtual Workload InFlight() const = 0;
  // What finished ones hold for those that begin alike.
  virtual Workload Finished() const = 0;
  // Gives the KV of one finished request back. False if there is none.
  virtual bool Trim() = 0;
  // The youngest running request gives its KV up and waits again. False if none runs.
  virtual bool Preempt() = 0;
  virtual std::vector<SequenceId> Sequences() const = 0;
};

// Thread rule: the loop's thread.
class MemoryKeeper {
 public:
  using Time = LoopClock::Time;

  struct Parts {
    Engine* engine = nullptr;
    const Policy* policy = nullptr;
    uint64_t process_bytes = 0;
    LimitReader limit;
    EventLog* events = nullptr;
    LoopObserver* observer = nullptr;  // may be nullptr
    KvTenants* tenants = nullptr;
  };
  // Reads the limit for the first time. The engine may hold any plan; Tend brings it in line.
  MemoryKeeper(const Parts& parts, const LoopOptions& options, Time now);

  // Before each step: looks at the limit if a tick has passed or `look` says so, and makes what is held fit it.
  void Tend(Time now, bool look);
  // Is there a plan for this workload under the limit? Cheap if it is no more than what is planned for already.
  bool CanServe(const Workload& workload) const;
  // Makes room for what is in flight now. REQUIRES: CanServe said yes to it.
  void MakeRoom(Time now);
  // Gives KV of finished requests back until what is planned and what they hold fit together.
  void TrimToFit();

  // Blocks are to come back, and may.
  bool loading(Time now) const;
  // What is resident is part of the plan that was decided on, but no plan that anybody decided on (the new plan keeps
  // blocks that the one before did not, and those have not come yet): it may be worse than the policy's floor, so
  // nobody may be served. Not so while blocks come back to a plan that was in force: keeping more rarely hurts.
  bool incomplete() const { return incomplete_; }
  // One helping of them. A failure (the file cannot be read, say) becomes an event, and the next try waits a while.
  void Load(Time now);
  // After each step: is the limit kept? `step_ms` is what it took.
  void Watch(Time now, double step_ms);

  // An event with the present figures, for the log.
  ServingEvent Event(ServingEvent::Kind kind, Time now) const;

  const Controller& controller() const { return controller_; }
  const LimitReading& reading() const { return reading_; }
  uint64_t planned_bytes() const { return hysteresis_.planned_bytes(); }
  uint64_t process_bytes() const { return controller_.process_bytes() + reading_.unplanned_bytes; }
  uint64_t used_bytes() const { return engine_.memory_in_use().total() + process_bytes(); }
  // Grows with every change of residency: what was computed under another count was computed under another plan.
  int64_t plan_epoch() const { return plan_epoch_; }
  int64_t transitions() const { return transitions_; }
  int64_t violations() const { return watch_.violations(); }
  double overshoot_byte_seconds() const { return watch_.overshoot_byte_seconds(); }
  int64_t largest_request_cells() const { return largest_request_cells_; }
  uint64_t minimum_bytes() const { return minimum_bytes_; }
  uint64_t dense_peak_bytes() const { return dense_peak_bytes_; }

 private:
  // What the reading leaves to plan with: never less than the least that can serve, or memory that is held by requests
  // which wait could keep them waiting for ever.
  uint64_t plannable_bytes() const;
  // What is planned for: in flight now, or shortly before.
  Workload Target(Time now);
  void FitTarget(Time now);
  void Fit(Time now, Workload workload);
  // What is resident may have changed.
  void NotePlan();
  void TellTrim(int64_t cells, Time now);
  void TellError(const Status& status, Time now);
  void Tell(const TransitionEvent& event, Time now);
  void TellLimit(Time now);
  int64_t FindLargestRequest() const;
  uint64_t FindMinimum() const;

  Engine& engine_;
  LimitReader limit_;
  EventLog& events_;
  LoopObserver* observer_;
  KvTenants& tenants_;
  LoopOptions options_;
  const Time began_;
  Time last_look_;
  LimitReading reading_;
  LimitHysteresis hysteresis_;
  Controller controller_;
  RecentWorkloads recent_;
  Time no_load_before_;
  bool below_floor_ = false;
  bool stale_ = true;  // the plan has not been made for the present limit yet
  bool incomplete_ = true;
  std::optional<Plan> complete_;  // the last plan that was decided on and all of which was resident
  Plan seen_plan_;                // that plan_epoch_ counts
  int64_t plan_epoch_ = 0;
  // The last question that CanServe said no to: who waits asks it before every step.
  struct Refusal {
    uint64_t planned_bytes;
    Workload workload;
  };
  mutable std::optional<Refusal> refusal_;
  int64_t transitions_ = 0;
  LimitWatch watch_;
  uint64_t told_limit_ = 0;  // reading and plan when an event told of the limit
  uint64_t told_planned_ = 0;
  std::string told_source_;
  Time told_at_;
  std::string told_error_;
  Time told_error_at_;
  int64_t largest_request_cells_ = 0;
  uint64_t minimum_bytes_ = 0;
  uint64_t dense_peak_bytes_ = 0;
};

}  // namespace espalier
