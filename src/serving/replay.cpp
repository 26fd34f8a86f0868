#include "serving/replay.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "serving/replay_recorder.h"

namespace espalier {
namespace {

using Time = LoopClock::Time;

Time::duration Seconds(double seconds) {
  return std::chrono::duration_cast<Time::duration>(std::chrono::duration<double>(seconds));
}

class Player {
 public:
  Player(const LoadTrace& trace, const ReplayParts& parts, const ReplayOptions& options)
      : trace_(trace),
        parts_(parts),
        options_(options),
        recorder_(std::make_shared<ReplayRecorder>(parts.clock, options, trace.duration_seconds / options.speed)),
        end_(Due(trace.duration_seconds)) {}

  Result<ReplayReport> Play() {
    const LoopSnapshot first = parts_.loop->snapshot();
    const double skipped = parts_.clock->skipped_seconds();
    const uint64_t handle =
        parts_.loop->events().Subscribe([this](const ServingEvent& event) { recorder_->OnEvent(event); });
    const Status status = PlayAll();
    const Time over = parts_.clock->Now();
    const double skipped_at_end = parts_.clock->skipped_seconds();
    Settle();
    parts_.loop->events().Unsubscribe(handle);
    ESPALIER_RETURN_IF_ERROR(status);
    ReplayReport report = recorder_->Finish(first, parts_.loop->snapshot());
    report.stopped = stopped_;
    report.seconds = std::chrono::duration<double>(over - recorder_->start()).count();
    report.skipped_seconds = skipped_at_end - skipped;
    return report;
  }

 private:
  // Steps that a loop may fail one after the other, each of which ends requests, before it counts as broken.
  static constexpr int kMaxFailuresInARow = 100;
  // Steps that cancelled requests have to end.
  static constexpr int kStepsToCancel = 1000;

  Time Due(double trace_seconds) const { return recorder_->start() + Seconds(trace_seconds / options_.speed); }

  Status PlayAll() {
    while (true) {
      const Time now = parts_.clock->Now();
      SetLimits(now);
      ESPALIER_RETURN_IF_ERROR(Submit(now));
      if (!cancelled_ && (MustStop() || now >= end_ + Seconds(options_.drain_seconds))) {
        CancelAll();
      }
      const bool trace_is_over = stopped_ || now >= end_;
      if ((trace_is_over && recorder_->in_flight() == 0) || (cancelled_ && steps_to_cancel_-- == 0)) {
        return Status::Ok();
      }
      ESPALIER_ASSIGN_OR_RETURN(const bool computed, Step());
      if (!computed) {
        parts_.clock->WaitUntil(NextLook());
      }
    }
  }

  void SetLimits(Time now) {
    const size_t before = next_budget_;
    while (next_budget_ < trace_.budgets.size() && Due(trace_.budgets[next_budget_].seconds) <= now) {
      parts_.limit->Set(trace_.budgets[next_budget_++].budget.LimitBytes(parts_.base));
    }
    if (next_budget_ != before) {
      parts_.loop->Wake();
    }
  }

  Status Submit(Time now) {
    for (; !stopped_ && next_arrival_ < trace_.arrivals.size(); ++next_arrival_) {
      const Arrival& arrival = trace_.arrivals[next_arrival_];
      const Time due = Due(arrival.seconds);
      if (due > now) {
        break;
      }
      LoopRequest request;
      request.prompt = MakePrompt(options_.prompts, trace_.seed, arrival);
      request.max_tokens = arrival.max_tokens;
      request.make_sampler = [make = parts_.make_sampler, seed = arrival.prompt_seed] { return make(seed); };
      request.listener = ReplayRecorder::Listen(recorder_, due);
      recorder_->OnRequest();
      const auto id = parts_.loop->Submit(std::move(request));
      if (id.ok()) {
        accepted_.push_back(*id);
      } else {
        recorder_->OnRefusal(id.status());
      }
    }
    return Status::Ok();
  }

  bool MustStop() {
    stopped_ = stopped_ || (options_.stop != nullptr && options_.stop->load());
    return stopped_;
  }

  void CancelAll() {
    cancelled_ = true;
    steps_to_cancel_ = kStepsToCancel;
    // Most of them have ended, which the loop does not mind.
    std::for_each(accepted_.begin(), accepted_.end(), [this](RequestId id) { parts_.loop->Cancel(id); });
  }

  Result<bool> Step() {
    const Time before = parts_.clock->Now();
    const auto computed = parts_.loop->Step();
    failures_ = computed.ok() ? 0 : failures_ + 1;
    if (failures_ > kMaxFailuresInARow) {
      return computed.status();
    }
    const Time now = parts_.clock->Now();
    const LoopSnapshot snapshot = parts_.loop->snapshot();
    const bool worked = computed.ok() && *computed;
    recorder_->OnStep(snapshot, worked ? std::chrono::duration<double>(now - before).count() : 0);
    loading_ = !snapshot.pending.empty();
    if (options_.progress) {
      const double seconds = std::chrono::duration<double>(now - recorder_->start()).count() * options_.speed;
      options_.progress(std::min(seconds, trace_.duration_seconds), snapshot);
    }
    return worked;
  }

  // When to step again after a step that had nothing to compute. Not beyond the loop's next look at memory, which may
  // let requests in; soon, where blocks are coming back, which takes a step each.
  Time NextLook() const {
    constexpr double kWhileLoading = 0.005;
    const Time now = parts_.clock->Now();
    const double tick = parts_.loop->options().tick_ms / 1e3;
    Time next = now + Seconds(loading_ ? std::min(kWhileLoading, tick) : tick);
    if (next_budget_ < trace_.budgets.size()) {
      next = std::min(next, Due(trace_.budgets[next_budget_].seconds));
    }
    if (next_arrival_ < trace_.arrivals.size()) {
      next = std::min(next, Due(trace_.arrivals[next_arrival_].seconds));
    }
    return now < end_ ? std::min(next, end_) : next;
  }

  // A snapshot may be a quarter of a second old: after this it has everything.
  void Settle() {
    constexpr double kSnapshotAge = 0.3;
    parts_.clock->WaitUntil(parts_.clock->Now() + Seconds(kSnapshotAge));
    if (failures_ == 0 && parts_.loop->Step().ok()) {
      recorder_->OnStep(parts_.loop->snapshot(), 0);
    }
  }

  const LoadTrace& trace_;
  const ReplayParts& parts_;
  const ReplayOptions& options_;
  std::shared_ptr<ReplayRecorder> recorder_;
  const Time end_;
  size_t next_arrival_ = 0;
  size_t next_budget_ = 0;
  std::vector<RequestId> accepted_;
  bool stopped_ = false;
  bool cancelled_ = false;
  bool loading_ = false;
  int steps_to_cancel_ = 0;
  int failures_ = 0;
};

Status CheckOptions(const ReplayOptions& o) {
  if (!(o.speed >= 1e-3 && o.speed <= 1e6)) {
    return InvalidArgument(fmt::format("replay speed {}: expected 0.001 to 1000000", o.speed));
  }
  if (!(o.drain_seconds >= 0 && o.drain_seconds <= kMaxTraceSeconds) || std::isnan(o.late_seconds) ||
      std::isnan(o.good_loss)) {
    return InvalidArgument(
        fmt::format("replay: {} s to drain, late after {} s, good up to {} nats: expected numbers, "
                    "the first from 0 to {:.0f}",
                    o.drain_seconds, o.late_seconds, o.good_loss, kMaxTraceSeconds));
  }
  if (o.prompts.n_vocab <= 0 || o.max_points < 2) {
    return InvalidArgument(fmt::format("replay: vocabulary of {} tokens, {} points: expected at least 1 and 2",
                                       o.prompts.n_vocab, o.max_points));
  }
  return Status::Ok();
}

}  // namespace

Result<ReplayReport> Replay(const LoadTrace& trace, const ReplayParts& parts, const ReplayOptions& options) {
  ESPALIER_RETURN_IF_ERROR(CheckTrace(trace));
  ESPALIER_RETURN_IF_ERROR(CheckOptions(options));
  ESPALIER_RETURN_IF_ERROR(parts.make_sampler(trace.seed).status());
  return Player(trace, parts, options).Play();
}

}  // namespace espalier
