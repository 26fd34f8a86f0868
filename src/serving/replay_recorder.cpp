#include "serving/replay_recorder.h"

#include <algorithm>
#include <utility>

namespace espalier {
namespace {

// Of the resident plan; empty: not known. While blocks are coming back the snapshot tells of the plan with them.
std::optional<double> LossOf(const LoopSnapshot& snapshot) {
  if (snapshot.plan != nullptr && snapshot.plan->dense()) {
    return 0;  // whatever a policy knows, nothing is missing
  }
  return snapshot.loss && snapshot.pending.empty() ? std::optional<double>(snapshot.loss->nats) : std::nullopt;
}

}  // namespace

class ReplayRecorder::Listener final : public RequestListener {
 public:
  Listener(std::shared_ptr<ReplayRecorder> recorder, LoopClock::Time due) : recorder_(std::move(recorder)), due_(due) {}

  void OnToken(const TokenScores& /*scores*/) override {
    ReplayRecorder& to = *recorder_;
    const LoopClock::Time now = to.clock_->Now();
    ++to.new_tokens_;
    if (n_tokens_++ == 0) {
      const double waited = std::chrono::duration<double>(now - due_).count();
      to.first_token_.Add(waited);
      to.report_.late += waited > to.late_seconds_ ? 1 : 0;
    } else {
      to.inter_token_.Add(std::chrono::duration<double>(now - last_).count());
    }
    last_ = now;
  }

  void OnEnd(const RequestEnd& end) override {
    recorder_->OnEnd(end, std::chrono::duration<double>(recorder_->clock_->Now() - due_).count());
  }

 private:
  std::shared_ptr<ReplayRecorder> recorder_;
  LoopClock::Time due_;
  LoopClock::Time last_;
  int64_t n_tokens_ = 0;
};

ReplayRecorder::ReplayRecorder(const LoopClock* clock, const ReplayOptions& options, double expected_seconds)
    : clock_(clock),
      late_seconds_(options.late_seconds),
      good_loss_(options.good_loss),
      start_(clock->Now()),
      course_(expected_seconds / static_cast<double>(options.max_points), options.max_points) {}

std::shared_ptr<RequestListener> ReplayRecorder::Listen(const std::shared_ptr<ReplayRecorder>& recorder,
                                                        LoopClock::Time due) {
  return std::make_shared<Listener>(recorder, due);
}

double ReplayRecorder::Since(LoopClock::Time time) const {
  return std::chrono::duration<double>(time - start_).count();
}

void ReplayRecorder::OnRefusal(const Status& status) {
  if (report_.refused++ == 0) {
    report_.first_refusal = status.message();
  }
}

void ReplayRecorder::OnEnd(const RequestEnd& end, double seconds) {
  ++ended_;
  report_.preemptions += end.preemptions;
  report_.prompt_tokens += end.prompt_tokens;
  report_.cached_prompt_tokens += end.cached_tokens;
  switch (end.reason) {
    case FinishReason::kEndOfText:
    case FinishReason::kLength:
      ++report_.completed;
      total_.Add(seconds);
      break;
    case FinishReason::kFailed:
      if (report_.failed++ == 0) {
        report_.first_failure = end.status.message();
      }
      break;
    case FinishReason::kCancelled:
    case FinishReason::kShutdown:
      ++report_.unfinished;
      break;
  }
}

void ReplayRecorder::OnEvent(const ServingEvent& event) {
  if (event.kind == ServingEvent::Kind::kLimit) {
    return;  // every step of the trace is one
  }
  ReplayEvent heard;
  heard.seconds = Since(clock_->Now());
  heard.kind = event.kind;
  heard.limit_bytes = event.limit_bytes;
  heard.before_bytes = event.used_bytes;
  heard.after_bytes = event.used_bytes;
  heard.text = event.text;
  if (event.transition) {
    heard.reason = ReasonName(event.transition->reason);
    heard.before_bytes = event.transition->before.used_bytes();
    heard.after_bytes = event.transition->after.used_bytes();
    heard.ms = event.transition->ms;
    ++report_.transitions;
    report_.transition_ms += heard.ms;
    report_.max_transition_ms = std::max(report_.max_transition_ms, heard.ms);
    moves_.Add(heard.seconds, *event.transition);
  }
  if (report_.events.size() < kMaxReplayEvents) {
    report_.events.push_back(std::move(heard));
  } else {
    ++report_.events_left_out;
  }
}

void ReplayRecorder::OnStep(const LoopSnapshot& snapshot, double busy) {
  report_.busy_seconds += busy;
  report_.generated_tokens += new_tokens_;
  const std::optional<double> loss = LossOf(snapshot);
  if (loss) {
    known_tokens_ += new_tokens_;
    loss_sum_ += *loss * static_cast<double>(new_tokens_);
  }
  const bool good = good_loss_ == std::numeric_limits<double>::infinity() || (loss && *loss <= good_loss_);
  report_.good_tokens += good ? new_tokens_ : 0;
  new_tokens_ = 0;
  if (const double seconds = Since(clock_->Now()); course_.wants(seconds)) {
    course_.Add({seconds, snapshot.limit_bytes, snapshot.planned_bytes,
                 snapshot.managed.total() + snapshot.process_bytes, snapshot.running, snapshot.waiting});
  }
}

ReplayReport ReplayRecorder::Finish(const LoopSnapshot& first, const LoopSnapshot& last) {
  ReplayReport report = std::move(report_);
  report.lost = report.requests - report.refused - ended_;
  report.first_token = first_token_.Summary();
  report.inter_token = inter_token_.Summary();
  report.total = total_.Summary();
  report.moves = moves_.all().count();
  report.most_moves_in_a_minute = moves_.all().most_in_a_minute();
  report.budget_moves = moves_.by_budget().count();
  report.most_budget_moves_in_a_minute = moves_.by_budget().most_in_a_minute();
  report.course = std::move(course_).Take();
  report.violations = last.violations - first.violations;
  report.overshoot_byte_seconds = last.overshoot_byte_seconds - first.overshoot_byte_seconds;
  if (known_tokens_ > 0) {
    report.mean_loss_nats = loss_sum_ / static_cast<double>(known_tokens_);
    report.loss_known_share = static_cast<double>(known_tokens_) / static_cast<double>(report.generated_tokens);
  }
  return report;
}

}  // namespace espalier
