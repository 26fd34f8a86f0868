// The engine loop: requests in flight, a limit that moves, one engine. No HTTP and no text in it.
//
// One thread calls Step() again and again (or Run(), which does that and sleeps when there is nothing to do). Each
// step:
//   1. messages from other threads: new requests, cancellations;
//   2. memory (MemoryKeeper): a new limit, what has to go goes, what may come back comes back a helping at a time;
//   3. admission: waiting requests for which a plan exists, their max_tokens counted;
//   4. one batch: a token of every request that is decoding, then stretches of prompts in turn, within a number of
//      tokens that takes about `prefill_ms`;
//   5. sampling and listeners.
//
// Nothing is lost: a limit that what is in flight cannot meet first trims KV of finished requests, then prunes down to
// the policy's floor, then takes the youngest requests' KV and puts them back at the head of the queue, with their
// tokens; they are computed again when there is room. Only Cancel, a failing engine and Stop end a request early.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "control/controller.h"
#include "memory/account.h"
#include "runtime/engine.h"
#include "serving/events.h"
#include "serving/request.h"
#include "text/tokenizer.h"

namespace espalier {

// Time for the loop: the real one, or a replay's.
class LoopClock {
 public:
  using Time = std::chrono::steady_clock::time_point;
  virtual ~LoopClock() = default;
  virtual Time Now() const { return std::chrono::steady_clock::now(); }
};

// The limit as it is now, by whatever source. Called on the engine thread, every tick and after Wake().
struct LimitReading {
  uint64_t bytes = UINT64_MAX;  // on managed + process bytes
  std::string source;           // "operator", "cgroup", ...
  // Growth may wait, shrinking may not: while true, memory is short somewhere, and nothing comes back.
  bool pressure = false;
  bool deliberate = false;  // somebody set it: any rise is believed after grow_after_ms
  // Memory of the process that no footprint knows of: what answers, grammars and connections hold while there are many
  // of them, or large ones. It counts as used, and leaves less to plan with.
  uint64_t unplanned_bytes = 0;
};
// `used_bytes`: managed bytes, and the process before the first block was loaded.
using LimitReader = std::function<LimitReading(uint64_t used_bytes)>;

struct LoopOptions {
  int max_running = 4;                           // requests in the engine at once (llama.cpp: -np)
  int max_waiting = 512;                         // requests in the queue; beyond: kBusy
  int64_t max_waiting_cells = int64_t{1} << 24;  // KV cells that the queue asks for together; beyond: kBusy
  int64_t request_cells = 0;                     // prompt + answer of one request at most; 0: all cells
  int batch_tokens = 2048;                       // tokens of one step at most (llama.cpp: -b)
  double prefill_ms = 200;                       // a step's prompt tokens are as many as take about this long
  // Requests that find nobody running wait so long for others that come with them: prompts that are computed together
  // take less time, and answers that begin together share more steps.
  double gather_ms = 1;
  bool cache_prompts = true;    // keep KV of finished requests while there is room
  double tick_ms = 250;         // between two looks at the limit
  double grow_after_ms = 2000;  // a limit must have stayed clearly higher for so long before memory grows again
  double settle_ms = 60000;     // likewise for small rises (limit_hysteresis.h)
  double hold_ms = 60000;       // room for requests that ended is kept for those to come for so long
  double reprefill_ratio = 4;   // as GenerationOptions::reprefill_ratio
};

// The loop's state at some moment of the last quarter of a second.
struct LoopSnapshot {
  double seconds = 0;          // since the loop began
  uint64_t limit_bytes = 0;    // as the source says
  uint64_t planned_bytes = 0;  // the limit that the plan was made for: lower while growth waits
  std::string limit_source;
  bool pressure = false;
  uint64_t process_bytes = 0;
  MemoryInUse managed;
  uint64_t dense_peak_bytes = 0;      // managed peak of the dense plan with all cells in use
  uint64_t minimum_bytes = 0;         // the smallest limit under which anything can be served at all
  int64_t largest_request_cells = 0;  // prompt + max_tokens of the largest request that this limit allows
  int64_t used_cells = 0;
  int64_t cached_cells = 0;    // of used_cells: of finished requests
  int64_t reserved_cells = 0;  // for requests in flight
  int64_t capacity_cells = 0;
  std::shared_ptr<const Plan> plan;  // resident
  std::vector<BlockId> pending;      // still to be loaded
  std::optional<PredictedLoss> loss;
  std::string policy;
  std::vector<RequestView> requests;  // running first
  int running = 0;
  int waiting = 0;
  // Since the loop began.
  int64_t prompt_tokens = 0;
  int64_t cached_prompt_tokens = 0;
  int64_t generated_tokens = 0;
  int64_t completed = 0;
  int64_t cancelled = 0;
  int64_t failed = 0;
  int64_t refused = 0;  // never admitted: the queue was full, or they can never fit
  int64_t preemptions = 0;
  int64_t transitions = 0;
  int64_t steps = 0;
  double step_ms = 0;                 // of the last one
  int64_t violations = 0;             // steps that ended above the limit after the reaction deadline
  double overshoot_byte_seconds = 0;  // above the limit, deadline or not
  double tokens_per_second = 0;       // generated, over the last seconds
};

// For metrics and reports. Called on the engine thread; must not block.
class LoopObserver {
 public:
  virtual ~LoopObserver() = default;
  virtual void OnFirstToken(double /*seconds_since_submit*/) {}
  virtual void OnInterToken(double /*seconds*/) {}
  virtual void OnRequestEnd(const RequestEnd& /*end*/) {}
  virtual void OnTransition(const TransitionEvent& /*event*/) {}
};

// Thread rule: Submit, Cancel, Wake, Stop, snapshot and events from any thread; Step and Run from one.
class EngineLoop {
 public:
  // What the loop stands on; all of it must outlive the loop.
  struct Parts {
    Engine* engine = nullptr;
    const Tokenizer* tokenizer = nullptr;
    const Policy* policy = nullptr;
    uint64_t process_bytes = 0;        // before the first block was loaded
    LimitReader limit;                 // empty: no limit
    const LoopClock* clock = nullptr;  // nullptr: the real one
    LoopObserver* observer = nullptr;  // may be nullptr
  };
  static std::unique_ptr<EngineLoop> Create(const Parts& parts, const LoopOptions& options);
  virtual ~EngineLoop() = default;

  // Takes a request, or says why not, with the numbers: kInvalidArgument if prompt and max_tokens exceed the context or
  // the prompt has a token that the model does not have, kOutOfBudget if no plan under the present limit leaves room
  // for it even alone, kBusy if the queue is full or the loop is stopping. After ok the listener hears of it until
  // OnEnd; otherwise never.
  virtual Result<RequestId> Submit(LoopRequest request) = 0;
  // Ends the request soon, whatever it does now. No-op for one that has ended.
  virtual void Cancel(RequestId id) = 0;
  // The limit may have changed: look now, not at the next tick.
  virtual void Wake() = 0;

  // One step. False if there was nothing to compute.
  virtual Result<bool> Step() = 0;
  // Steps until Stop; sleeps while there is nothing to do. Errors of single batches end their requests, not the loop.
  virtual Status Run() = 0;
  // Refuses new requests from now on. Run returns when what is in flight has ended, or at `deadline`, when the rest
  // ends with kShutdown.
  virtual void Stop(LoopClock::Time deadline) = 0;

  virtual LoopSnapshot snapshot() const = 0;
  virtual EventLog& events() = 0;
  virtual const LoopOptions& options() const = 0;
};

}  // namespace espalier
