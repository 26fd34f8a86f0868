#include "serving/memory_keeper.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/bytes.h"
#include "control/transition_text.h"
#include "serving/loop_time.h"

namespace espalier {
namespace {

using Milliseconds = std::chrono::duration<double, std::milli>;

// Of at least one cell, which policies take as given.
Workload AtLeastOne(const Workload& workload) { return Max(workload, Workload::Uniform(1, 1)); }

bool KeepsAllOf(const Plan& plan, const Plan& part) {
  for (int b = 0; b < part.n_block(); ++b) {
    if (part.kept({b}) && !plan.kept({b})) {
      return false;
    }
  }
  return true;
}

constexpr std::chrono::seconds kLoadPause(5);  // after a load that failed

// The smallest x in [low, high] for which `yes`, which is false and then true; `high` is taken to be true.
template <class Predicate>
uint64_t FirstTrue(uint64_t low, uint64_t high, Predicate yes) {
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    if (yes(middle)) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return high;
}

LimitReading Read(const LimitReader& reader, uint64_t used_bytes) {
  return reader ? reader(used_bytes) : LimitReading();
}

}  // namespace

MemoryKeeper::MemoryKeeper(const Parts& parts, const LoopOptions& options, Time now)
    : engine_(*parts.engine),
      limit_(parts.limit),
      events_(*parts.events),
      observer_(parts.observer),
      tenants_(*parts.tenants),
      options_(options),
      began_(now),
      last_look_(now),
      reading_(Read(limit_, engine_.memory_in_use().total() + parts.process_bytes)),
      hysteresis_(reading_.bytes, now,
                  {.grow_after = Milliseconds(options.grow_after_ms), .settle = Milliseconds(options.settle_ms)}),
      controller_(
          engine_, *parts.policy,
          {.workload = Workload::Uniform(1, 1), .process_bytes = parts.process_bytes, .limit_bytes = reading_.bytes}),
      recent_(options.hold_ms),
      no_load_before_(now),
      seen_plan_(engine_.plan()),
      watch_(now) {
  const MemoryModel& memory = engine_.memory_model();
  const int n_layer = engine_.plan().n_layer();
  dense_peak_bytes_ =
      PredictFootprint(memory, Plan::Dense(n_layer), Workload::Uniform(1, engine_.capacity_cells())).peak_bytes();
  minimum_bytes_ = FindMinimum();
  largest_request_cells_ = FindLargestRequest();
}

uint64_t MemoryKeeper::plannable_bytes() const {
  const uint64_t left = reading_.bytes - std::min(reading_.bytes, reading_.unplanned_bytes);
  return std::max(left, std::min(reading_.bytes, minimum_bytes_));
}

uint64_t MemoryKeeper::FindMinimum() const {
  const Workload least = Workload::Uniform(1, 1);
  const uint64_t nothing =
      PredictFootprint(engine_.memory_model(), Plan::Nothing(engine_.plan().n_layer()), least).peak_bytes();
  return FirstTrue(nothing + controller_.process_bytes(), dense_peak_bytes_ + controller_.process_bytes(),
                   [&](uint64_t limit) { return controller_.Decide(limit, least).ok(); });
}

int64_t MemoryKeeper::FindLargestRequest() const {
  const auto fits = [&](int64_t cells) {
    return controller_.Decide(hysteresis_.planned_bytes(), Workload::Uniform(1, cells)).ok();
  };
  const int64_t capacity = options_.request_cells > 0 ? std::min(options_.request_cells, engine_.capacity_cells())
                                                      : engine_.capacity_cells();
  if (fits(capacity)) {
    return capacity;
  }
  return static_cast<int64_t>(FirstTrue(1, static_cast<uint64_t>(capacity),
                                        [&](uint64_t cells) { return !fits(static_cast<int64_t>(cells)); })) -
         1;
}

ServingEvent MemoryKeeper::Event(ServingEvent::Kind kind, Time now) const {
  ServingEvent event;
  event.kind = kind;
  event.seconds = SecondsBetween(began_, now);
  event.unix_ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  event.limit_bytes = reading_.bytes;
  event.used_bytes = used_bytes();
  event.source = reading_.source;
  return event;
}

void MemoryKeeper::Tell(const TransitionEvent& transition, Time now) {
  ++transitions_;
  if (observer_ != nullptr) {
    observer_->OnTransition(transition);
  }
  ServingEvent event = Event(ServingEvent::Kind::kTransition, now);
  event.text =
      fmt::format("{};{}; managed {} -> {} (predicted {})", DescribeTransition(transition), ChangedBlocks(transition),
                  FormatBytes(transition.before.managed.total()), FormatBytes(transition.after.managed.total()),
                  FormatBytes(transition.predicted_bytes_after));
  event.transition = transition;
  events_.Add(std::move(event));
}

// A source that follows the machine moves all the time, and the tightest of several is now one, now the other: only
// what is worth a line.
void MemoryKeeper::TellLimit(Time now) {
  constexpr double kWorthTelling = 0.01;
  constexpr std::chrono::seconds kSourceMayChange(10);
  const auto planned = static_cast<double>(hysteresis_.planned_bytes());
  const auto told = static_cast<double>(told_planned_);
  const bool moved = std::abs(planned - told) > kWorthTelling * told;
  const bool set = reading_.deliberate && reading_.bytes != told_limit_;
  const bool from_elsewhere = reading_.source != told_source_ && now - told_at_ >= kSourceMayChange;
  if (!moved && !set && !from_elsewhere) {
    return;
  }
  told_limit_ = reading_.bytes;
  told_planned_ = hysteresis_.planned_bytes();
  told_source_ = reading_.source;
  told_at_ = now;
  ServingEvent event = Event(ServingEvent::Kind::kLimit, now);
  event.text = reading_.bytes == UINT64_MAX ? "no limit"
                                            : fmt::format("limit {} ({}), in use {}", FormatBytes(reading_.bytes),
                                                          reading_.source, FormatBytes(event.used_bytes));
  if (reading_.unplanned_bytes > 0) {
    event.text += fmt::format(", of which requests hold {} beside their KV", FormatBytes(reading_.unplanned_bytes));
  }
  events_.Add(std::move(event));
}

void MemoryKeeper::TellTrim(int64_t cells, Time now) {
  ServingEvent event = Event(ServingEvent::Kind::kTrim, now);
  event.text = fmt::format("{} KV cells of finished requests were given back", cells);
  events_.Add(std::move(event));
}

void MemoryKeeper::NotePlan() {
  if (!(seen_plan_ == engine_.plan())) {
    seen_plan_ = engine_.plan();
    ++plan_epoch_;
  }
  if (!controller_.loading() && !below_floor_) {
    complete_ = seen_plan_;
  }
  incomplete_ = !complete_ || !KeepsAllOf(seen_plan_, *complete_);
}

bool MemoryKeeper::loading(Time now) const {
  // What is missing of the plan in force is no growth.
  const bool needed = incomplete_ && tenants_.InFlight().n_sequences > 0;
  return controller_.loading() && (!reading_.pressure || needed) && now >= no_load_before_;
}

Workload MemoryKeeper::Target(Time now) {
  const Workload in_flight = AtLeastOne(tenants_.InFlight());
  recent_.Observe(in_flight, now);
  // Once room has to be made, it is made for all that is remembered: requests that come one after the other would else
  // take blocks away one by one.
  return in_flight.Within(controller_.workload()) ? recent_.Held(now) : recent_.Remembered();
}

void MemoryKeeper::Tend(Time now, bool look) {
  const uint64_t before = hysteresis_.planned_bytes();
  if (look || now - last_look_ >= Ticks(options_.tick_ms)) {
    last_look_ = now;
    const uint64_t plannable_before = plannable_bytes();
    const bool pressure_before = reading_.pressure;
    reading_ = Read(limit_, engine_.memory_in_use().total() + controller_.process_bytes());
    const uint64_t plannable = plannable_bytes();
    if (plannable < plannable_before) {
      watch_.ExcuseUntil(now + Ticks(options_.tick_ms));
    }
    // While memory is short somewhere nothing grows; what it may grow to is asked again when that is over.
    if (!reading_.pressure || plannable < hysteresis_.planned_bytes()) {
      hysteresis_.Observe(plannable, now, reading_.deliberate);
    }
    TellLimit(now);
    if (reading_.pressure) {
      const int64_t cells = tenants_.Finished().kv_cells;
      while (tenants_.Trim()) {
      }
      if (cells > 0 && !pressure_before) {
        TellTrim(cells, now);
      }
    }
  }
  const uint64_t planned = hysteresis_.planned_bytes();
  if (planned != before) {
    stale_ = true;
    largest_request_cells_ = FindLargestRequest();
  }
  FitTarget(now);
}

void MemoryKeeper::FitTarget(Time now) {
  const Workload target = Target(now);
  // Below the floor nothing but another limit helps.
  if (stale_ || (!below_floor_ && !(target == controller_.workload()))) {
    Fit(now, target);
  }
}

// `workload` is what would be good to have room for; what is in flight has to have some.
void MemoryKeeper::Fit(Time now, Workload workload) {
  const uint64_t limit = hysteresis_.planned_bytes();
  controller_.SetSequences(tenants_.Sequences());
  bool dropped_everything = false;
  const bool new_limit = stale_;
  Result<std::optional<TransitionEvent>> change = controller_.Retarget(limit, workload);
  while (!change.ok() && change.status().code() == ErrorCode::kOutOfBudget) {
    // What is in flight has to have room; that there was more a moment ago, and may be again, has not.
    const Workload in_flight = AtLeastOne(tenants_.InFlight());
    if (!(workload == in_flight)) {
      workload = in_flight;
      recent_.Reset(in_flight, now);
    } else if (!tenants_.Preempt()) {
      if (!below_floor_) {
        ServingEvent event = Event(ServingEvent::Kind::kBelowFloor, now);
        event.text = change.status().message();
        events_.Add(std::move(event));
      }
      while (tenants_.Trim()) {
      }
      dropped_everything = true;
      change = controller_.DropEverything(limit);
      break;
    } else {
      ServingEvent event = Event(ServingEvent::Kind::kPreempt, now);
      event.text = "the youngest request gave its memory up and waits";
      events_.Add(std::move(event));
    }
    controller_.SetSequences(tenants_.Sequences());
    change = controller_.Retarget(limit, workload);
  }
  below_floor_ = dropped_everything;
  NotePlan();
  if (!change.ok()) {  // releasing does not fail, and the policy said all it had to say
    TellError(change.status(), now);
    return;
  }
  stale_ = false;
  if (change->has_value()) {
    const double gib = static_cast<double>((*change)->moved.released_bytes) / static_cast<double>(kGiB);
    constexpr double kMsPerGib = 25;
    watch_.Excuse(Ticks(kMsPerGib * gib));
    Tell(**change, now);
  }
  const int64_t finished = tenants_.Finished().kv_cells;
  TrimToFit();
  if (new_limit && tenants_.Finished().kv_cells < finished) {
    TellTrim(finished - tenants_.Finished().kv_cells, now);
  }
}

bool MemoryKeeper::CanServe(const Workload& workload) const {
  const Workload asked = AtLeastOne(workload);
  if (!stale_ && !below_floor_ && asked.Within(controller_.workload())) {
    return true;
  }
  const uint64_t planned = hysteresis_.planned_bytes();
  if (refusal_ && refusal_->planned_bytes == planned && refusal_->workload == asked) {
    return false;
  }
  if (controller_.Decide(planned, asked).ok()) {
    return true;
  }
  refusal_ = {planned, asked};
  return false;
}

void MemoryKeeper::MakeRoom(Time now) { FitTarget(now); }

void MemoryKeeper::TrimToFit() {
  Plan planned = engine_.plan();
  for (const BlockId block : controller_.pending()) {
    planned.Restore(block);
  }
  for (Workload finished = tenants_.Finished(); finished.kv_cells > 0; finished = tenants_.Finished()) {
    const Workload held = AtLeastOne(tenants_.InFlight()) + finished;
    const uint64_t peak = PredictFootprint(engine_.memory_model(), planned, held).peak_bytes();
    const bool fits = peak + controller_.process_bytes() <= hysteresis_.planned_bytes();
    if ((fits && held.kv_cells <= engine_.capacity_cells()) || !tenants_.Trim()) {
      return;
    }
  }
}

void MemoryKeeper::Load(Time now) {
  controller_.SetSequences(tenants_.Sequences());
  const Result<TransitionEvent> event = controller_.Load();
  NotePlan();
  if (event.ok()) {
    Tell(*event, now);
    return;
  }
  no_load_before_ = now + kLoadPause;
  stale_ = true;  // what is pending has to be decided again
  TellError(event.status(), now);
}

void MemoryKeeper::TellError(const Status& status, Time now) {
  if (status.message() == told_error_ && now - told_error_at_ < kLoadPause) {
    return;  // tried again before every step
  }
  told_error_ = status.message();
  told_error_at_ = now;
  ServingEvent event = Event(ServingEvent::Kind::kError, now);
  event.text = status.message();
  events_.Add(std::move(event));
}

void MemoryKeeper::Watch(Time now, double step_ms) {
  watch_.Observe(used_bytes(), reading_.bytes, Ticks(step_ms), now);
}

}  // namespace espalier
