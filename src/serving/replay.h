// Plays a load trace against an engine loop, on the calling thread, and tells how it went.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "serving/engine_loop.h"
#include "serving/load_trace.h"
#include "serving/replay_clock.h"
#include "serving/replay_prompts.h"
#include "serving/replay_statistics.h"

namespace espalier {

// What is played on; all of it must outlive the replay, `clock` the loop. REQUIRES: nothing is null.
struct ReplayParts {
  EngineLoop* loop = nullptr;  // reads `limit` and `clock`, and nobody else steps it
  ReplayClock* clock = nullptr;
  TraceLimit* limit = nullptr;
  BudgetBase base;  // of percentages
  // For one request.
  std::function<Result<std::unique_ptr<Sampler>>(uint64_t seed)> make_sampler;
};

struct ReplayOptions {
  PromptSource prompts;
  double speed = 1;          // seconds of the trace per second of the clock
  double late_seconds = 10;  // a first token after so long is late
  // Goodput counts tokens whose predicted loss is at most this, in nats; infinite: all of them.
  double good_loss = std::numeric_limits<double>::infinity();
  double drain_seconds = 600;               // after the trace's end requests have so long to end, then are cancelled
  size_t max_points = 2000;                 // of ReplayReport::course
  const std::atomic<bool>* stop = nullptr;  // true: everything is cancelled, and the report is of what was played
  // After each step: seconds of the trace that are done, at most all of them.
  std::function<void(double seconds, const LoopSnapshot& snapshot)> progress;
};

// Something that happened to memory.
struct ReplayEvent {
  double seconds = 0;  // since the replay began, by the clock
  ServingEvent::Kind kind = ServingEvent::Kind::kTransition;
  std::string reason;  // of a transition: "budget", "load", "reprefill"; else empty
  uint64_t limit_bytes = 0;
  uint64_t before_bytes = 0;  // used: managed + process
  uint64_t after_bytes = 0;
  double ms = 0;  // a transition took
  std::string text;
};

struct ReplayReport {
  bool stopped = false;        // by ReplayOptions::stop
  double seconds = 0;          // by the clock, until trace and last request had ended
  double skipped_seconds = 0;  // of them
  double busy_seconds = 0;     // of them inside steps that computed something

  // Requests that came. Each is one of completed, refused, failed, unfinished and lost.
  int64_t requests = 0;
  int64_t completed = 0;
  int64_t refused = 0;  // by Submit
  int64_t failed = 0;
  int64_t unfinished = 0;  // cancelled: by the stop flag, or after drain_seconds
  int64_t lost = 0;        // never ended. Must be 0
  int64_t late = 0;        // of those with a first token
  int64_t preemptions = 0;
  std::string first_refusal;  // its reason; empty: none
  std::string first_failure;  // likewise

  int64_t prompt_tokens = 0;  // of requests that ended
  int64_t cached_prompt_tokens = 0;
  int64_t generated_tokens = 0;
  int64_t good_tokens = 0;  // of them, by ReplayOptions::good_loss
  double tokens_per_second() const { return seconds > 0 ? static_cast<double>(generated_tokens) / seconds : 0; }
  double goodput() const { return seconds > 0 ? static_cast<double>(good_tokens) / seconds : 0; }
  // Of requests that completed or got as far. From the moment at which the trace has them come: a step that was running
  // then is part of the wait, or a slow step would hide the very requests that it delays.
  Latencies first_token;
  Latencies inter_token;
  Latencies total;

  // Over generated tokens, of the plan that was resident when they came, as the loop's snapshot has it (up to a quarter
  // of a second late); not known while blocks are coming back. Empty where the loss of none is known.
  std::optional<double> mean_loss_nats;
  double loss_known_share = 0;

  int64_t violations = 0;
  double overshoot_byte_seconds = 0;
  int64_t transitions = 0;  // each helping of blocks counted
  int64_t moves = 0;        // changes of plan (MoveCounter)
  int64_t most_moves_in_a_minute = 0;
  int64_t budget_moves = 0;  // of them: because the limit moved
  int64_t most_budget_moves_in_a_minute = 0;
  double transition_ms = 0;         // together
  double max_transition_ms = 0;     // the longest
  std::vector<ReplayEvent> events;  // at most kMaxReplayEvents, the first; limits are in `course`
  int64_t events_left_out = 0;
  std::vector<ReplayPoint> course;
};
inline constexpr size_t kMaxReplayEvents = 10000;

// Fails on a trace or options out of range, where no sampler can be made, and where the loop fails again and again
// without getting anywhere; a request that is refused or fails is part of the report.
Result<ReplayReport> Replay(const LoadTrace& trace, const ReplayParts& parts, const ReplayOptions& options);

}  // namespace espalier
