#include "serving/engine_loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "serving/batch_run.h"
#include "serving/delivery.h"
#include "serving/kv_tenancy.h"
#include "serving/loop_inbox.h"
#include "serving/loop_publisher.h"
#include "serving/loop_time.h"
#include "serving/memory_keeper.h"
#include "serving/prefill_pace.h"
#include "serving/request_bounds.h"
#include "serving/waiting_queue.h"
#include "serving/work.h"

namespace espalier {
namespace {

using Time = LoopClock::Time;

class EngineLoopImpl final : public EngineLoop {
 public:
  EngineLoopImpl(const Parts& parts, const LoopOptions& options)
      : engine_(*parts.engine),
        clock_(parts.clock != nullptr ? *parts.clock : real_clock_),
        options_(options),
        bounds_({.cells = options.request_cells > 0 ? std::min(options.request_cells, engine_.capacity_cells())
                                                    : engine_.capacity_cells(),
                 .n_vocab = parts.tokenizer->n_vocab()}),
        began_(clock_.Now()),
        inbox_({.requests = options.max_waiting, .cells = options.max_waiting_cells}, options.max_running),
        tenancy_(parts.engine, &waiting_),
        keeper_({.engine = parts.engine,
                 .policy = parts.policy,
                 .process_bytes = parts.process_bytes,
                 .limit = parts.limit,
                 .events = &events_,
                 .observer = parts.observer,
                 .tenants = &tenancy_},
                options, began_),
        delivery_({.engine = parts.engine,
                   .tokenizer = parts.tokenizer,
                   .keeper = &keeper_,
                   .tenancy = &tenancy_,
                   .inbox = &inbox_,
                   .observer = parts.observer,
                   .keep_kv = options.cache_prompts}),
        pace_(options.prefill_ms, options.batch_tokens),
        publisher_({.engine = parts.engine,
                    .keeper = &keeper_,
                    .tenancy = &tenancy_,
                    .waiting = &waiting_,
                    .delivery = &delivery_,
                    .inbox = &inbox_,
                    .policy = parts.policy->name(),
                    .began = began_}) {
    ESPALIER_CHECK(options.max_running > 0 && options.batch_tokens >= options.max_running);
    ESPALIER_CHECK(options.max_running <= engine_.options().max_sequences);
    publisher_.Publish(steps_, began_);
  }

  ~EngineLoopImpl() override {
    Receive();
    EndAll(FinishReason::kShutdown);
  }

  Result<RequestId> Submit(LoopRequest request) override;
  void Cancel(RequestId id) override { inbox_.Cancel(id); }
  void Wake() override { inbox_.Wake(); }
  Result<bool> Step() override;
  Status Run() override;
  void Stop(Time deadline) override { inbox_.Stop(deadline); }
  LoopSnapshot snapshot() const override { return publisher_.snapshot(); }
  EventLog& events() override { return events_; }
  const LoopOptions& options() const override { return options_; }

 private:
  // Messages of other threads. True if somebody wants the limit looked at.
  bool Receive();
  void CancelWork(RequestId id);
  void Admit(Time now);
  bool Admissible(const Work& work) const;
  int FreeSlots() const;
  void Begin(std::unique_ptr<Work> work, Time now);
  bool LoadBlocks(Time now);
  bool ReprefillNext(Time now);
  void RunBatch(const std::vector<BatchShare>& shares);
  void EndAll(FinishReason reason);
  bool idle() const { return tenancy_.running().empty() && waiting_.empty(); }

  const LoopClock real_clock_;
  Engine& engine_;
  const LoopClock& clock_;
  const LoopOptions options_;
  const RequestBounds bounds_;
  const Time began_;
  EventLog events_;
  LoopInbox inbox_;

  // The loop's thread alone.
  WaitingQueue waiting_;
  KvTenancy tenancy_;
  MemoryKeeper keeper_;
  Delivery delivery_;
  PrefillPace pace_;
  bool reprefills_due_ = false;  // blocks came back since the last request was computed again
  LoopPublisher::Steps steps_;

  LoopPublisher publisher_;  // from any thread, as far as it says so
};

Result<RequestId> EngineLoopImpl::Submit(LoopRequest request) {
  ESPALIER_CHECK(!request.prompt.empty() && request.max_tokens >= 0 && request.listener != nullptr);
  ESPALIER_CHECK(request.max_tokens == 0 || request.make_sampler != nullptr);
  if (Status status = CheckRequest(request, bounds_, publisher_.room()); !status.ok()) {
    inbox_.CountRefused();
    return status;
  }
  auto work = std::make_unique<Work>();
  work->prompt_tokens = static_cast<int64_t>(request.prompt.size());
  work->tokens = std::move(request.prompt);
  work->request = std::move(request);
  work->submitted = clock_.Now();
  return inbox_.Put(std::move(work));
}

// --- who comes and goes

bool EngineLoopImpl::Receive() {
  LoopInbox::Messages messages = inbox_.Take();
  for (auto& work : messages.submitted) {
    waiting_.PushBack(std::move(work));
  }
  for (const RequestId id : messages.cancelled) {
    CancelWork(id);
  }
  return messages.look;
}

void EngineLoopImpl::CancelWork(RequestId id) {
  const Time now = clock_.Now();
  if (std::unique_ptr<Work> work = waiting_.Remove(id)) {
    delivery_.EndWaiting(std::move(work), FinishReason::kCancelled, now);
  } else if (const Work* running = tenancy_.FindRunning(id)) {
    delivery_.End(*running, FinishReason::kCancelled, Status::Ok(), now);
  }
}

bool EngineLoopImpl::Admissible(const Work& work) const {
  const Workload workload = tenancy_.InFlight() + work.workload();
  return workload.kv_cells <= engine_.capacity_cells() && keeper_.CanServe(workload);
}

// How many more can be admitted at once, as far as is known: none while somebody waits whom the present limit has room
// for, since others come behind.
int EngineLoopImpl::FreeSlots() const {
  const bool held_up = std::any_of(waiting_.begin(), waiting_.end(), [this](const auto& work) {
    return work->cells() <= keeper_.largest_request_cells();
  });
  return held_up ? 0 : options_.max_running - static_cast<int>(tenancy_.running().size());
}

// First come, first served: who does not fit yet holds up those behind, or it might wait for ever. Except one that the
// present limit has no room for even alone, which must wait for another limit.
void EngineLoopImpl::Admit(Time now) {
  std::vector<std::unique_ptr<Work>> too_large;
  while (!waiting_.empty() && tenancy_.running().size() < static_cast<size_t>(options_.max_running)) {
    if (waiting_.front().cells() > keeper_.largest_request_cells()) {
      too_large.push_back(waiting_.PopFront());
      continue;
    }
    if (!Admissible(waiting_.front())) {
      break;
    }
    Begin(waiting_.PopFront(), now);
  }
  for (auto& work : too_large) {
    waiting_.Return(std::move(work));
  }
}

void EngineLoopImpl::Begin(std::unique_ptr<Work> work, Time now) {
  if (work->started == Time()) {
    if (work->request.max_tokens > 0) {
      auto sampler = std::exchange(work->request.make_sampler, nullptr)();
      if (!sampler.ok()) {
        return delivery_.EndWaiting(std::move(work), FinishReason::kFailed, now, sampler.status());
      }
      work->sampler = *std::move(sampler);
      work->sampler->AcceptPrompt(work->tokens);
    }
    work->started = now;
    work->transitions_at_start = keeper_.transitions();
  }
  tenancy_.Begin(std::move(work), keeper_.plan_epoch());
}

void EngineLoopImpl::EndAll(FinishReason reason) {
  const Time now = clock_.Now();
  while (!tenancy_.running().empty()) {
    delivery_.End(*tenancy_.running().back(), reason, Status::Ok(), now);
  }
  while (!waiting_.empty()) {
    delivery_.EndWaiting(waiting_.PopFront(), reason, now);
  }
}

// --- one step

// Blocks come back, and when the last of them has, those who gain by it are computed again.
bool EngineLoopImpl::LoadBlocks(Time now) {
  if (keeper_.loading(now)) {
    keeper_.Load(now);
    reprefills_due_ = true;
    return true;
  }
  reprefills_due_ = reprefills_due_ && ReprefillNext(now);
  return false;
}

// Attention blocks came back, and running sequences have no rows there. One request at a time is computed again, so
// that not everybody waits at once. False if nobody is left for whom it pays.
bool EngineLoopImpl::ReprefillNext(Time now) {
  const auto& running = tenancy_.running();
  const bool busy = std::any_of(running.begin(), running.end(),
                                [](const auto& work) { return work->generated() > 0 && !work->decoding(); });
  if (busy) {
    return true;
  }
  const auto found = std::find_if(running.begin(), running.end(), [&](const auto& work) {
    const int64_t to_come = work->request.max_tokens - work->generated();
    return work->computed > 0 &&
           static_cast<double>(work->computed) <= options_.reprefill_ratio * static_cast<double>(to_come) &&
           !engine_.SkippedBlocks(work->sequence).empty();
  });
  if (found == running.end()) {
    return false;
  }
  Work& work = **found;
  ServingEvent event = keeper_.Event(ServingEvent::Kind::kReprefill, now);
  event.text = fmt::format("request {}: {} tokens are computed again, to use attention blocks that came back", work.id,
                           work.computed);
  events_.Add(std::move(event));
  tenancy_.Restart(work, keeper_.plan_epoch());
  return true;
}

void EngineLoopImpl::RunBatch(const std::vector<BatchShare>& shares) {
  const Time start = clock_.Now();
  ++steps_.count;
  std::vector<SampledToken> sampled;
  const Status status = RunShares(engine_, shares, sampled);
  const Time now = clock_.Now();
  if (!status.ok()) {
    for (const BatchShare& share : shares) {
      delivery_.End(*share.work, FinishReason::kFailed, status, now);
    }
    return;
  }
  int64_t prompt = 0;
  int64_t all = 0;
  for (const BatchShare& share : shares) {
    prompt += share.work->decoding() ? 0 : share.tokens;
    all += share.tokens;
  }
  pace_.Observe(prompt, all - prompt, MillisecondsBetween(start, now));
  delivery_.Deliver(shares, sampled, now);
}

Result<bool> EngineLoopImpl::Step() {
  const bool look = Receive();
  const Time start = clock_.Now();
  const int64_t transitions = keeper_.transitions();
  keeper_.Tend(start, look);
  tenancy_.FollowPlan(keeper_.plan_epoch());
  Admit(start);
  keeper_.MakeRoom(start);
  const bool loaded = LoadBlocks(start);
  tenancy_.FollowPlan(keeper_.plan_epoch());
  if (tenancy_.finished_cells() > 0) {
    keeper_.TrimToFit();
  }
  if (look || keeper_.transitions() != transitions) {
    publisher_.Publish(steps_, clock_.Now());  // whoever asked for it looks, and a step may take long
  }
  // Of what a plan is made of, too little is resident to answer with until the last of it has come.
  const std::vector<BatchShare> shares =
      keeper_.incomplete() ? std::vector<BatchShare>() : PlanShares(tenancy_.running(), pace_, options_.batch_tokens);
  if (!shares.empty()) {
    RunBatch(shares);
  }
  const Time now = clock_.Now();
  steps_.last_ms = MillisecondsBetween(start, now);
  keeper_.Watch(now, steps_.last_ms);
  inbox_.TellQueue(static_cast<int>(waiting_.size()), waiting_.cells(), FreeSlots());
  if (publisher_.due(now)) {
    publisher_.Publish(steps_, now);
  }
  return loaded || !shares.empty();
}

Status EngineLoopImpl::Run() {
  while (!inbox_.Drained(idle(), clock_.Now())) {
    ESPALIER_ASSIGN_OR_RETURN(const bool worked, Step());
    if (!worked) {
      publisher_.Publish(steps_, clock_.Now());
      inbox_.Sleep(std::chrono::duration<double, std::milli>(options_.tick_ms), idle(), clock_.Now());
      if (idle()) {
        inbox_.Gather(std::chrono::duration<double, std::milli>(options_.gather_ms));
      }
    }
  }
  Receive();
  EndAll(FinishReason::kShutdown);
  publisher_.Publish(steps_, clock_.Now());
  return Status::Ok();
}

}  // namespace

std::unique_ptr<EngineLoop> EngineLoop::Create(const Parts& parts, const LoopOptions& options) {
  return std::make_unique<EngineLoopImpl>(parts, options);
}

}  // namespace espalier
