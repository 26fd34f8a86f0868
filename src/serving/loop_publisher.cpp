#include "serving/loop_publisher.h"

#include <chrono>
#include <memory>
#include <utility>

#include "serving/loop_time.h"

namespace espalier {

void LoopPublisher::AddMemory(LoopSnapshot& s) const {
  const Engine& engine = *parts_.engine;
  const MemoryKeeper& keeper = *parts_.keeper;
  s.limit_bytes = keeper.reading().bytes;
  s.planned_bytes = keeper.planned_bytes();
  s.limit_source = keeper.reading().source;
  s.pressure = keeper.reading().pressure;
  s.process_bytes = keeper.process_bytes();
  s.managed = engine.memory_in_use();
  s.dense_peak_bytes = keeper.dense_peak_bytes();
  s.minimum_bytes = keeper.minimum_bytes();
  s.largest_request_cells = keeper.largest_request_cells();
  s.used_cells = engine.used_cells();
  s.cached_cells = parts_.tenancy->finished_cells();
  s.reserved_cells = parts_.tenancy->InFlight().kv_cells;
  s.capacity_cells = engine.capacity_cells();
  if (snapshot_.plan == nullptr || !(*snapshot_.plan == engine.plan())) {
    s.plan = std::make_shared<const Plan>(engine.plan());
  } else {
    s.plan = snapshot_.plan;
  }
  s.pending = keeper.controller().pending();
  s.loss = keeper.controller().loss();
  s.policy = parts_.policy;
  s.transitions = keeper.transitions();
  s.violations = keeper.violations();
  s.overshoot_byte_seconds = keeper.overshoot_byte_seconds();
}

void LoopPublisher::AddRequests(LoopSnapshot& s) const {
  for (const auto& work : parts_.tenancy->running()) {
    s.requests.push_back(work->View(true));
  }
  for (const auto& work : *parts_.waiting) {
    s.requests.push_back(work->View(false));
  }
  s.running = static_cast<int>(parts_.tenancy->running().size());
  s.waiting = static_cast<int>(parts_.waiting->size());
  s.preemptions = parts_.tenancy->preemptions();
  const Delivery::Counters& counters = parts_.delivery->counters();
  s.prompt_tokens = counters.prompt_tokens;
  s.cached_prompt_tokens = counters.cached_prompt_tokens;
  s.generated_tokens = counters.generated_tokens;
  s.completed = counters.completed;
  s.cancelled = counters.cancelled;
  s.failed = counters.failed;
}

void LoopPublisher::Publish(const Steps& steps, Time now) {
  published_ = now;
  LoopSnapshot s;
  s.seconds = SecondsBetween(parts_.began, now);
  AddMemory(s);
  AddRequests(s);
  s.steps = steps.count;
  s.step_ms = steps.last_ms;
  s.tokens_per_second = rate_.Observe(s.generated_tokens, now);
  const std::lock_guard lock(mutex_);
  snapshot_ = std::move(s);
}

bool LoopPublisher::due(Time now) const {
  constexpr std::chrono::milliseconds kEvery(50);
  return now - published_ >= kEvery;
}

LoopSnapshot LoopPublisher::snapshot() const {
  const std::lock_guard lock(mutex_);
  LoopSnapshot snapshot = snapshot_;
  snapshot.refused = parts_.inbox->refused();
  return snapshot;
}

RequestRoom LoopPublisher::room() const {
  const std::lock_guard lock(mutex_);
  return {.planned_bytes = snapshot_.planned_bytes, .largest_request_cells = snapshot_.largest_request_cells};
}

}  // namespace espalier
