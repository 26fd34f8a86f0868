#include "serving/replay.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <set>
#include <utility>

#include "control/fakes_for_test.h"

namespace espalier {
namespace {

using std::chrono::milliseconds;

// Time passes when somebody waits, or works.
class ManualClock final : public ReplayClock {
 public:
  Time Now() const override { return now_; }
  void WaitUntil(Time time) override {
    ++waits;
    skipped_ += std::max(0.0, std::chrono::duration<double>(time - now_).count());
    now_ = std::max(now_, time);
  }
  double skipped_seconds() const override { return skipped_; }
  void Work(milliseconds time) { now_ += time; }
  int waits = 0;

 private:
  Time now_ = Time() + std::chrono::hours(1);
  double skipped_ = 0;
};

// One request at a time, a token a step, 10 ms a step; 25 ms for the first one's prompt.
class FakeLoop final : public EngineLoop {
 public:
  FakeLoop(ManualClock* clock, LimitReader limit) : clock_(clock), limit_(std::move(limit)) {
    now_.plan = std::make_shared<const Plan>(Plan::Dense(2));
    now_.managed.weight_bytes = 500;
  }

  Result<RequestId> Submit(LoopRequest request) override {
    EXPECT_TRUE(request.make_sampler != nullptr && request.make_sampler().ok());
    prompts.push_back(request.prompt);
    submitted_at.push_back(clock_->Now());
    if (request.prompt.size() > 100) {
      return InvalidArgument("prompt too long");
    }
    queue_.push_back({++last_id_, std::move(request)});
    return last_id_;
  }
  void Cancel(RequestId id) override {
    for (auto& work : queue_) {
      work.cancelled |= work.id == id;
    }
  }
  void Wake() override { ++wakes; }

  Result<bool> Step() override {
    ++steps;
    now_.limit_bytes = limit_(0).bytes;
    now_.violations += now_.limit_bytes < 500 ? 1 : 0;
    limits.push_back(now_.limit_bytes);
    if (fail_from >= 0 && steps >= fail_from) {
      return IoError("broken");
    }
    if (!lose_cancelled) {
      for (size_t i = queue_.size(); i-- > 0;) {
        if (queue_[i].cancelled) {
          End(i, FinishReason::kCancelled);
        }
      }
    }
    if (queue_.empty() || now_.limit_bytes < 100) {
      return false;
    }
    if (before_token) {
      before_token(&now_, &log_);
    }
    Working& work = queue_.front();
    clock_->Work(milliseconds(work.generated == 0 ? 25 : 10));
    work.request.listener->OnToken({});
    if (++work.generated == work.request.max_tokens) {
      End(0, work.request.prompt.size() == 13 ? FinishReason::kFailed : FinishReason::kLength);
    }
    return true;
  }
  Status Run() override { return Status::Ok(); }
  void Stop(LoopClock::Time) override {}
  LoopSnapshot snapshot() const override { return now_; }
  EventLog& events() override { return log_; }
  const LoopOptions& options() const override { return options_; }

  std::vector<std::vector<int32_t>> prompts;
  std::vector<LoopClock::Time> submitted_at;
  std::vector<uint64_t> limits;
  std::function<void(LoopSnapshot*, EventLog*)> before_token;
  bool lose_cancelled = false;
  int fail_from = -1;
  int wakes = 0;
  int steps = 0;

 private:
  struct Working {
    RequestId id = 0;
    LoopRequest request;
    int64_t generated = 0;
    bool cancelled = false;
  };
  void End(size_t i, FinishReason reason) {
    RequestEnd end;
    end.reason = reason;
    end.status = reason == FinishReason::kFailed ? IoError("out of luck") : Status::Ok();
    end.prompt_tokens = static_cast<int64_t>(queue_[i].request.prompt.size());
    end.generated_tokens = queue_[i].generated;
    const auto listener = queue_[i].request.listener;
    queue_.erase(queue_.begin() + static_cast<std::ptrdiff_t>(i));
    listener->OnEnd(end);
  }

  ManualClock* clock_;
  LimitReader limit_;
  EventLog log_;
  LoopOptions options_;
  LoopSnapshot now_;
  RequestId last_id_ = 0;
  std::deque<Working> queue_;
};

class ReplayTest : public testing::Test {
 protected:
  ReplayTest() {
    options_.prompts.n_vocab = 16;
    parts_.loop = &loop_;
    parts_.clock = &clock_;
    parts_.limit = &limit_;
    parts_.base = {.process_bytes = 100, .dense_peak_bytes = 1000};
    parts_.make_sampler = [](uint64_t) -> Result<std::unique_ptr<Sampler>> {
      return std::unique_ptr<Sampler>(new FakeSampler());
    };
  }

  static LoadTrace Trace(double seconds, std::vector<Arrival> arrivals, std::vector<BudgetStep> budgets = {}) {
    return {.name = "test", .seed = 1, .duration_seconds = seconds, .arrivals = arrivals, .budgets = budgets};
  }
  static Arrival At(double seconds, int64_t prompt_tokens = 5, int64_t max_tokens = 3) {
    return {.seconds = seconds, .prompt_tokens = prompt_tokens, .max_tokens = max_tokens};
  }
  ReplayReport Play(const LoadTrace& trace) {
    auto report = Replay(trace, parts_, options_);
    EXPECT_TRUE(report.ok()) << report.status().message();
    return report.ok() ? std::move(*report) : ReplayReport();
  }

  ManualClock clock_;
  TraceLimit limit_{UINT64_MAX};
  FakeLoop loop_{&clock_, limit_.Reader()};
  ReplayParts parts_;
  ReplayOptions options_;
};

TEST_F(ReplayTest, ArrivalsComeWhenTheTraceSaysAndTheTraceIsPlayedToItsEnd) {
  const auto start = clock_.Now();
  const ReplayReport report = Play(Trace(10, {At(0), At(2.5), At(7)}));
  EXPECT_EQ(loop_.submitted_at,
            (std::vector<LoopClock::Time>{start, start + milliseconds(2500), start + milliseconds(7000)}));
  EXPECT_EQ(report.requests, 3);
  EXPECT_EQ(report.completed, 3);
  EXPECT_EQ(report.lost, 0);
  EXPECT_EQ(report.generated_tokens, 9);
  EXPECT_EQ(report.prompt_tokens, 15);
  EXPECT_NEAR(report.seconds, 10, 1e-6);
  EXPECT_NEAR(report.busy_seconds, 3 * 0.045, 1e-6);
  EXPECT_NEAR(report.skipped_seconds, 10 - 3 * 0.045, 1e-6);
  EXPECT_NEAR(report.tokens_per_second(), 0.9, 1e-6);
  EXPECT_NEAR(report.first_token.p99, 25, 1e-3);
  EXPECT_NEAR(report.inter_token.p50, 10, 1e-3);
  EXPECT_EQ(report.inter_token.count, 6);
  EXPECT_NEAR(report.total.max, 45, 1e-3);
  EXPECT_FALSE(report.stopped);
}

TEST_F(ReplayTest, WaitingCountsFromTheMomentThatTheTraceSays) {
  // The second one comes while the first is being computed: 10 ms into a step of 25 ms.
  const ReplayReport report = Play(Trace(1, {At(0, 5, 1), At(0.010, 5, 1)}));
  EXPECT_NEAR(report.first_token.max, 15 + 25, 1e-3);
  EXPECT_NEAR(report.total.max, 15 + 25, 1e-3);
}

TEST_F(ReplayTest, SpeedShortensTheTraceAndNotTheWork) {
  options_.speed = 10;
  const ReplayReport report = Play(Trace(10, {At(0), At(5)}));
  EXPECT_NEAR(report.seconds, 1, 1e-6);
  EXPECT_NEAR(report.busy_seconds, 0.09, 1e-6);
  EXPECT_NEAR(report.first_token.p50, 25, 1e-3);
}

TEST_F(ReplayTest, LateRequestsAreCounted) {
  options_.late_seconds = 0.030;
  // 25, 25 + 45 and 25 + 90 ms.
  EXPECT_EQ(Play(Trace(1, {At(0), At(0), At(0)})).late, 2);
}

TEST_F(ReplayTest, EveryRequestIsOneOfCompletedRefusedFailedUnfinishedLost) {
  const ReplayReport report = Play(Trace(5, {At(0), At(1, 101), At(2, 13), At(3, 500)}));
  EXPECT_EQ(report.requests, 4);
  EXPECT_EQ(report.completed, 1);
  EXPECT_EQ(report.refused, 2);
  EXPECT_EQ(report.first_refusal, "prompt too long");
  EXPECT_EQ(report.failed, 1);
  EXPECT_EQ(report.first_failure, "out of luck");
  EXPECT_EQ(report.total.count, 1);
  EXPECT_EQ(report.lost, 0);
}

TEST_F(ReplayTest, BudgetsAreSetInTimeAndTheLoopIsWoken) {
  const ReplayReport report =
      Play(Trace(4, {At(0)}, {{0, Budget::Percent(100)}, {1, Budget::Percent(60)}, {2, Budget::Bytes(450)}}));
  EXPECT_EQ(loop_.limits.front(), 1100);
  EXPECT_NE(std::find(loop_.limits.begin(), loop_.limits.end(), 700), loop_.limits.end());
  EXPECT_EQ(loop_.limits.back(), 450);
  EXPECT_EQ(loop_.wakes, 3);
  EXPECT_GT(report.violations, 0);
  for (const ReplayPoint& point : report.course) {
    EXPECT_EQ(point.limit_bytes, point.seconds < 0.999 ? 1100 : point.seconds < 1.999 ? 700 : 450) << point.seconds;
    EXPECT_EQ(point.used_bytes, 500);
  }
}

TEST_F(ReplayTest, WhoCannotBeServedIsWaitedForThenCancelled) {
  options_.drain_seconds = 20;
  const ReplayReport report = Play(Trace(2, {At(0), At(1)}, {{0.5, Budget::Bytes(50)}}));
  EXPECT_EQ(report.completed, 1);
  EXPECT_EQ(report.unfinished, 1);
  EXPECT_EQ(report.lost, 0);
  EXPECT_NEAR(report.seconds, 22, 0.3);
}

TEST_F(ReplayTest, ARequestThatTheLoopForgetsIsLost) {
  options_.drain_seconds = 1;
  loop_.lose_cancelled = true;
  const ReplayReport report = Play(Trace(2, {At(1)}, {{0.5, Budget::Bytes(50)}}));
  EXPECT_EQ(report.lost, 1);
}

TEST_F(ReplayTest, TheStopFlagCancelsWhatRuns) {
  std::atomic<bool> stop = false;
  options_.stop = &stop;
  options_.progress = [&](double seconds, const LoopSnapshot&) { stop = seconds > 0.02; };
  const ReplayReport report = Play(Trace(1000, {At(0, 5, 100), At(0), At(500)}));
  EXPECT_TRUE(report.stopped);
  EXPECT_EQ(report.requests, 2);
  EXPECT_EQ(report.unfinished, 2);
  EXPECT_LT(report.seconds, 1);
}

TEST_F(ReplayTest, ABrokenLoopEndsTheReplayWithItsError) {
  loop_.fail_from = 5;
  const auto report = Replay(Trace(1000, {At(0, 5, 100)}), parts_, options_);
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.status().message(), "broken");
}

TEST_F(ReplayTest, LossIsWeightedByTokensAndGoodputCountsThoseBelowTheFloor) {
  int token = 0;
  loop_.before_token = [&](LoopSnapshot* now, EventLog*) {
    // 2 tokens dense, 3 at 0.1, 1 at 0.5 and 2 of which nothing is known: no figure, or blocks on their way.
    static const auto kPruned = std::make_shared<const Plan>(Plan::Nothing(2));
    now->plan = token < 2 ? std::make_shared<const Plan>(Plan::Dense(2)) : kPruned;
    now->loss = token < 5 ? PredictedLoss{0.1, true} : PredictedLoss{0.5, true};
    if (token == 6) {
      now->loss.reset();
    }
    now->pending = token == 7 ? std::vector<BlockId>{{0}} : std::vector<BlockId>();
    ++token;
  };
  options_.good_loss = 0.1;
  const ReplayReport report = Play(Trace(1, {At(0, 5, 8)}));
  EXPECT_EQ(report.generated_tokens, 8);
  EXPECT_EQ(report.good_tokens, 5);
  ASSERT_TRUE(report.mean_loss_nats);
  EXPECT_NEAR(*report.mean_loss_nats, (3 * 0.1 + 0.5) / 6, 1e-9);
  EXPECT_NEAR(report.loss_known_share, 0.75, 1e-9);
  EXPECT_NEAR(report.goodput(), 5, 1e-6);
}

TEST_F(ReplayTest, TransitionsAreToldWithTheirBytesAndCounted) {
  int token = 0;
  loop_.before_token = [&](LoopSnapshot*, EventLog* log) {
    ServingEvent event;
    event.kind = token == 0 ? ServingEvent::Kind::kLimit : ServingEvent::Kind::kTransition;
    if (token == 1 || token == 2) {
      event.transition.emplace();
      event.transition->plan_before = Plan::Dense(2);
      event.transition->plan_after = Plan::Nothing(2);
      event.transition->before.managed.weight_bytes = 900;
      event.transition->after.managed.weight_bytes = 300;
      event.transition->after.process_bytes = 7;
      event.transition->ms = 3 * token;
    } else if (token == 3) {
      event.kind = ServingEvent::Kind::kTrim;
      event.used_bytes = 77;
    }
    if (token < 4) {
      log->Add(event);
    }
    ++token;
  };
  const ReplayReport report = Play(Trace(1, {At(0, 5, 4)}));
  ASSERT_EQ(report.events.size(), 3);
  EXPECT_EQ(report.transitions, 2);
  EXPECT_EQ(report.events[0].reason, "budget");
  EXPECT_EQ(report.events[0].before_bytes, 900);
  EXPECT_EQ(report.events[0].after_bytes, 307);
  EXPECT_NEAR(report.events[0].seconds, 0.025, 1e-6);
  EXPECT_EQ(report.events[2].kind, ServingEvent::Kind::kTrim);
  EXPECT_EQ(report.events[2].after_bytes, 77);
  EXPECT_EQ(report.transition_ms, 9);
  EXPECT_EQ(report.max_transition_ms, 6);
  EXPECT_EQ(report.moves, 2);
}

TEST_F(ReplayTest, TheCourseIsBoundedAndCoversAll) {
  options_.max_points = 10;
  const ReplayReport report = Play(Trace(100, {At(0)}));
  EXPECT_LE(report.course.size(), 10);
  EXPECT_GE(report.course.size(), 5);
  EXPECT_EQ(report.course.front().seconds, 0.025);
  EXPECT_GT(report.course.back().seconds, 80);
}

TEST_F(ReplayTest, AnIdleTraceIsFastWithTheSkippingClock) {
  SkippingClock skipping;
  const auto before = skipping.Now();
  skipping.WaitUntil(before + std::chrono::hours(1));
  EXPECT_GE(skipping.Now() - before, std::chrono::hours(1));
  EXPECT_NEAR(skipping.skipped_seconds(), 3600, 10);
  skipping.WaitUntil(before);
  EXPECT_GE(skipping.Now() - before, std::chrono::hours(1));
  // An hour by the manual clock is as many steps as the loop has ticks, not a spin.
  Play(Trace(3600, {}));
  EXPECT_NEAR(loop_.steps, 3600 / 0.25, 10);
}

TEST_F(ReplayTest, OptionsAndTracesOutOfRangeAreRefused) {
  EXPECT_FALSE(Replay(Trace(1, {At(2)}), parts_, options_).ok());
  options_.speed = 0;
  EXPECT_FALSE(Replay(Trace(1, {}), parts_, options_).ok());
  options_.speed = 1;
  options_.prompts.n_vocab = 0;
  EXPECT_FALSE(Replay(Trace(1, {}), parts_, options_).ok());
}

}  // namespace
}  // namespace espalier
