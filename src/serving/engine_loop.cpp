#include "serving/engine_loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <mutex>
#include <utility>

#include "base/check.h"
#include "serving/batch_plan.h"
#include "serving/batch_run.h"
#include "serving/finished_sequences.h"
#include "serving/loop_inbox.h"
#include "serving/memory_keeper.h"
#include "serving/prefill_pace.h"
#include "serving/waiting_queue.h"
#include "serving/work.h"

namespace espalier {
namespace {

using Time = LoopClock::Time;

double MillisecondsBetween(Time from, Time to) { return std::chrono::duration<double, std::milli>(to - from).count(); }
double SecondsBetween(Time from, Time to) { return std::chrono::duration<double>(to - from).count(); }

// Taking a finished sequence over for less is not worth losing it for others.
constexpr int64_t kLeastCommonTokens = 8;

class EngineLoopImpl final : public EngineLoop, private KvTenants {
 public:
  EngineLoopImpl(const Parts& parts, const LoopOptions& options)
      : engine_(*parts.engine),
        tokenizer_(*parts.tokenizer),
        policy_name_(parts.policy->name()),
        observer_(parts.observer),
        clock_(parts.clock != nullptr ? *parts.clock : real_clock_),
        options_(options),
        began_(clock_.Now()),
        n_vocab_(tokenizer_.n_vocab()),
        request_cells_(options.request_cells > 0 ? std::min(options.request_cells, engine_.capacity_cells())
                                                 : engine_.capacity_cells()),
        pace_(options.prefill_ms, options.batch_tokens),
        keeper_({.engine = parts.engine,
                 .policy = parts.policy,
                 .process_bytes = parts.process_bytes,
                 .limit = parts.limit,
                 .events = &events_,
                 .observer = parts.observer,
                 .tenants = this},
                options, began_),
        inbox_({.requests = options.max_waiting, .cells = options.max_waiting_cells}) {
    ESPALIER_CHECK(options.max_running > 0 && options.batch_tokens >= options.max_running);
    ESPALIER_CHECK(options.max_running <= engine_.options().max_sequences);
    Publish(began_);
  }

  ~EngineLoopImpl() override {
    Receive();
    EndAll(FinishReason::kShutdown);
    while (Trim()) {  // the engine may outlive this loop
    }
  }

  Result<RequestId> Submit(LoopRequest request) override;
  void Cancel(RequestId id) override { inbox_.Cancel(id); }
  void Wake() override { inbox_.Wake(); }
  Result<bool> Step() override;
  Status Run() override;
  void Stop(Time deadline) override { inbox_.Stop(deadline); }
  LoopSnapshot snapshot() const override {
    const std::lock_guard lock(snapshot_mutex_);
    LoopSnapshot snapshot = snapshot_;
    snapshot.refused = inbox_.refused();
    return snapshot;
  }
  EventLog& events() override { return events_; }
  const LoopOptions& options() const override { return options_; }

 private:
  struct Counters {
    int64_t prompt_tokens = 0, cached_prompt_tokens = 0, generated_tokens = 0;
    int64_t completed = 0, cancelled = 0, failed = 0, preemptions = 0, steps = 0;
  };

  // --- KvTenants
  Workload InFlight() const override;
  Workload Finished() const override { return finished_.Held(); }
  bool Trim() override;
  bool Preempt() override;
  std::vector<SequenceId> Sequences() const override;

  Status CheckSize(const LoopRequest& request) const;
  // Messages of other threads. True if somebody wants the limit looked at.
  bool Receive();
  void CancelWork(RequestId id);
  void Admit(Time now);
  bool Admissible(const Work& work) const;
  void Begin(std::unique_ptr<Work> work, Time now);
  void ForgetFinishedOfOtherPlans();
  bool ReprefillNext(Time now);
  std::vector<BatchShare> Shares() const;
  void RunBatch(const std::vector<BatchShare>& shares);
  void Deliver(const std::vector<BatchShare>& shares, const std::vector<SampledToken>& sampled, Time now);
  void DeliverToken(const SampledToken& sampled, Time now);
  void GiveUpKv(Work& work);
  void Place(Work& work);
  void MakeRoomForASequence();
  void EndWork(Work* work, FinishReason reason, Status status, Time now);
  void Finish(std::unique_ptr<Work> work, FinishReason reason, Status status, Time now);
  void EndAll(FinishReason reason);
  void Publish(Time now);
  void PublishIfDue(Time now);
  bool LoadBlocks(Time now);
  bool idle() const { return running_.empty() && waiting_.empty(); }

  const LoopClock real_clock_;
  Engine& engine_;
  const Tokenizer& tokenizer_;
  const std::string policy_name_;
  LoopObserver* observer_;
  const LoopClock& clock_;
  const LoopOptions options_;
  const Time began_;
  const int32_t n_vocab_;
  const int64_t request_cells_;  // of one request at most, whatever the limit
  EventLog events_;

  // The loop's thread alone.
  WaitingQueue waiting_;
  std::vector<std::unique_ptr<Work>> running_;  // in the order of submission: the youngest last
  FinishedSequences finished_;
  int64_t finished_epoch_ = 0;  // of the plan under which finished_ were computed
  SequenceId next_sequence_ = 0;
  PrefillPace pace_;
  MemoryKeeper keeper_;
  bool reprefills_due_ = false;  // blocks came back since the last request was computed again
  Counters counters_;
  double step_ms_ = 0;  // of the last step
  Time published_;
  std::deque<std::pair<Time, int64_t>> speed_;  // generated tokens so far, of the last seconds

  LoopInbox inbox_;
  mutable std::mutex snapshot_mutex_;
  LoopSnapshot snapshot_;
};

// --- from other threads

Status EngineLoopImpl::CheckSize(const LoopRequest& request) const {
  const auto prompt_tokens = static_cast<int64_t>(request.prompt.size());
  if (prompt_tokens > request_cells_ || request.max_tokens > request_cells_ ||
      Work::CellsOf(prompt_tokens, request.max_tokens) > request_cells_) {
    return InvalidArgument(fmt::format("prompt of {} tokens and {} to generate: the context holds {}", prompt_tokens,
                                       request.max_tokens, request_cells_));
  }
  // In a batch it would make the engine refuse everybody else's tokens, too.
  const auto unknown = std::find_if(request.prompt.begin(), request.prompt.end(),
                                    [&](int32_t token) { return token < 0 || token >= n_vocab_; });
  if (unknown != request.prompt.end()) {
    return InvalidArgument(fmt::format("token {} of the prompt is {}: expected 0 to {}",
                                       unknown - request.prompt.begin(), *unknown, n_vocab_ - 1));
  }
  const int64_t cells = Work::CellsOf(prompt_tokens, request.max_tokens);
  const std::lock_guard lock(snapshot_mutex_);
  if (cells > snapshot_.largest_request_cells) {
    return OutOfBudget(fmt::format(
        "prompt of {} tokens and {} to generate need {} KV cells: the memory budget of {} bytes has room "
        "for {}",
        prompt_tokens, request.max_tokens, cells, snapshot_.planned_bytes, snapshot_.largest_request_cells));
  }
  return Status::Ok();
}

Result<RequestId> EngineLoopImpl::Submit(LoopRequest request) {
  ESPALIER_CHECK(!request.prompt.empty() && request.max_tokens >= 0 && request.listener != nullptr);
  ESPALIER_CHECK(request.max_tokens == 0 || request.sampler != nullptr);
  if (Status status = CheckSize(request); !status.ok()) {
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

// --- what holds KV

Workload EngineLoopImpl::InFlight() const {
  Workload workload = {0, 0, 0};
  for (const auto& work : running_) {
    workload.kv_cells += work->cells();
    workload.longest_sequence = std::max(workload.longest_sequence, work->cells());
  }
  workload.n_sequences = static_cast<int>(running_.size());
  return workload;
}

bool EngineLoopImpl::Trim() {
  const auto sequence = finished_.TakeOldest();
  if (!sequence) {
    return false;
  }
  engine_.RemoveSequence(*sequence);
  return true;
}

void EngineLoopImpl::GiveUpKv(Work& work) {
  if (work.sequence >= 0) {
    engine_.RemoveSequence(work.sequence);
  }
  work.sequence = -1;
  work.computed = 0;
}

// Gives the work a sequence: a finished one that begins alike, or an empty one.
void EngineLoopImpl::Place(Work& work) {
  work.plan_epoch = keeper_.plan_epoch();
  work.taken_tokens = 0;
  if (work.request.cache_prompt && !work.request.prompt_scores && finished_epoch_ == keeper_.plan_epoch()) {
    // The last token is computed in any case: the next one comes out of it.
    const std::span<const int32_t> beginning(work.tokens.data(), work.tokens.size() - 1);
    if (const auto match = finished_.Take(beginning, kLeastCommonTokens)) {
      engine_.TruncateSequence(match->sequence, match->common_tokens);
      work.sequence = match->sequence;
      work.computed = work.taken_tokens = match->common_tokens;
    }
  }
  if (work.sequence < 0) {
    MakeRoomForASequence();
    work.sequence = next_sequence_++;
  }
  if (work.generated() == 0) {
    work.cached_tokens = work.taken_tokens;
  }
}

void EngineLoopImpl::MakeRoomForASequence() {
  const auto most = static_cast<size_t>(engine_.options().max_sequences);
  while (running_.size() + finished_.size() >= most && Trim()) {
  }
}

bool EngineLoopImpl::Preempt() {
  if (running_.empty()) {
    return false;
  }
  std::unique_ptr<Work> work = std::move(running_.back());
  running_.pop_back();
  GiveUpKv(*work);
  ++work->preemptions;
  ++counters_.preemptions;
  waiting_.Return(std::move(work));
  return true;
}

std::vector<SequenceId> EngineLoopImpl::Sequences() const {
  std::vector<SequenceId> sequences = finished_.sequences();
  for (const auto& work : running_) {
    sequences.push_back(work->sequence);
  }
  return sequences;
}

// --- one step

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
    Finish(std::move(work), FinishReason::kCancelled, Status::Ok(), now);
    return;
  }
  const auto found = std::find_if(running_.begin(), running_.end(), [&](const auto& work) { return work->id == id; });
  if (found != running_.end()) {
    EndWork(found->get(), FinishReason::kCancelled, Status::Ok(), now);
  }
}

bool EngineLoopImpl::Admissible(const Work& work) const {
  Workload workload = InFlight();
  ++workload.n_sequences;
  workload.kv_cells += work.cells();
  workload.longest_sequence = std::max(workload.longest_sequence, work.cells());
  return workload.kv_cells <= engine_.capacity_cells() && keeper_.CanServe(workload);
}

// First come, first served: who does not fit yet holds up those behind, or it might wait for ever. Except one that the
// present limit has no room for even alone, which must wait for another limit.
void EngineLoopImpl::Admit(Time now) {
  std::vector<std::unique_ptr<Work>> too_large;
  while (!waiting_.empty() && running_.size() < static_cast<size_t>(options_.max_running)) {
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
    work->started = now;
    work->transitions_at_start = keeper_.transitions();
    if (work->request.sampler != nullptr) {
      work->request.sampler->AcceptPrompt(work->tokens);
    }
  }
  Place(*work);
  // One that waited for a larger limit is older than some that did not have to: it is not the first to give way.
  const auto younger = std::find_if(running_.begin(), running_.end(), [&](const auto& w) { return w->id > work->id; });
  running_.insert(younger, std::move(work));
}

// After a change of plan nobody goes on in what was computed under another one, unless he computed it himself.
void EngineLoopImpl::ForgetFinishedOfOtherPlans() {
  if (finished_epoch_ == keeper_.plan_epoch()) {
    return;
  }
  finished_epoch_ = keeper_.plan_epoch();
  while (Trim()) {
  }
  for (const auto& work : running_) {
    if (work->taken_tokens == work->computed) {
      GiveUpKv(*work);
      Place(*work);
    }
  }
}

// Attention blocks came back, and running sequences have no rows there. One request at a time is computed again, so
// that not everybody waits at once. False if nobody is left for whom it pays.
bool EngineLoopImpl::ReprefillNext(Time now) {
  const auto pays = [&](const std::unique_ptr<Work>& work) {
    const int64_t to_come = work->request.max_tokens - work->generated();
    return work->computed > 0 &&
           static_cast<double>(work->computed) <= options_.reprefill_ratio * static_cast<double>(to_come) &&
           !engine_.SkippedBlocks(work->sequence).empty();
  };
  const bool busy = std::any_of(running_.begin(), running_.end(),
                                [](const auto& work) { return work->generated() > 0 && !work->decoding(); });
  if (busy) {
    return true;
  }
  const auto found = std::find_if(running_.begin(), running_.end(), pays);
  if (found == running_.end()) {
    return false;
  }
  Work& work = **found;
  ServingEvent event = keeper_.Event(ServingEvent::Kind::kReprefill, now);
  event.text = fmt::format("request {}: {} tokens are computed again, to use attention blocks that came back", work.id,
                           work.computed);
  events_.Add(std::move(event));
  GiveUpKv(work);
  Place(work);
  return true;
}

std::vector<BatchShare> EngineLoopImpl::Shares() const {
  std::vector<BatchDemand> demands;
  for (const auto& work : running_) {
    demands.push_back({.tokens = work->to_compute(), .decoding = work->decoding()});
  }
  const bool alone = std::none_of(demands.begin(), demands.end(), [](const BatchDemand& d) { return d.decoding; });
  const std::vector<int64_t> tokens =
      PlanBatch(demands, alone ? pace_.tokens_alone() : pace_.tokens(), options_.batch_tokens);
  std::vector<BatchShare> shares;
  for (const bool decoding : {true, false}) {  // whoever is waiting for one token does not share a graph with prompts
    for (size_t i = 0; i < running_.size(); ++i) {
      if (tokens[i] > 0 && demands[i].decoding == decoding) {
        shares.push_back({running_[i].get(), tokens[i]});
      }
    }
  }
  return shares;
}

void EngineLoopImpl::DeliverToken(const SampledToken& sampled, Time now) {
  Work& work = *sampled.work;
  if (!sampled.status.ok()) {
    EndWork(&work, FinishReason::kFailed, sampled.status, now);
    return;
  }
  const int32_t token = sampled.scores.chosen.token;
  if (tokenizer_.is_end_of_generation(token)) {
    EndWork(&work, FinishReason::kEndOfText, Status::Ok(), now);
    return;
  }
  if (work.generated() == 0) {
    work.first_token = now;
    if (observer_ != nullptr) {
      observer_->OnFirstToken(SecondsBetween(work.submitted, now));
    }
  } else if (observer_ != nullptr) {
    observer_->OnInterToken(SecondsBetween(work.last_token, now));
  }
  work.last_token = now;
  work.tokens.push_back(token);
  ++counters_.generated_tokens;
  work.request.listener->OnToken(sampled.scores);
  if (work.generated() >= work.request.max_tokens) {
    EndWork(&work, FinishReason::kLength, Status::Ok(), now);
  }
}

void EngineLoopImpl::Deliver(const std::vector<BatchShare>& shares, const std::vector<SampledToken>& sampled,
                             Time now) {
  std::vector<Work*> done;  // prompts of requests that want no answer
  for (const BatchShare& share : shares) {
    Work& work = *share.work;
    const bool in_prompt = work.computed < work.prompt_tokens;
    work.computed += share.tokens;
    if (in_prompt && work.generated() == 0) {
      work.request.listener->OnPrefill(std::min(work.computed, work.prompt_tokens), work.prompt_tokens);
    }
    if (work.generated() == 0 && work.computed >= work.prompt_tokens) {
      counters_.prompt_tokens += work.prompt_tokens;
      counters_.cached_prompt_tokens += work.cached_tokens;
      if (work.request.prompt_scores) {
        work.request.listener->OnPromptScores(std::exchange(work.scores, {}));
      }
      if (work.request.max_tokens == 0) {
        work.first_token = work.last_token = now;
        done.push_back(&work);
      }
    }
  }
  for (const SampledToken& one : sampled) {
    DeliverToken(one, now);
  }
  for (Work* work : done) {
    EndWork(work, FinishReason::kLength, Status::Ok(), now);
  }
}

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

void EngineLoopImpl::RunBatch(const std::vector<BatchShare>& shares) {
  const Time start = clock_.Now();
  ++counters_.steps;
  std::vector<SampledToken> sampled;
  const Status status = RunShares(engine_, shares, sampled);
  const Time now = clock_.Now();
  if (!status.ok()) {
    for (const BatchShare& share : shares) {
      EndWork(share.work, FinishReason::kFailed, status, now);
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
  Deliver(shares, sampled, now);
}

Result<bool> EngineLoopImpl::Step() {
  const bool look = Receive();
  const Time start = clock_.Now();
  const int64_t transitions = keeper_.transitions();
  keeper_.Tend(start, look);
  ForgetFinishedOfOtherPlans();
  Admit(start);
  keeper_.MakeRoom(start);
  const bool loaded = LoadBlocks(start);
  ForgetFinishedOfOtherPlans();
  if (finished_.cells() > 0) {
    keeper_.TrimToFit();
  }
  if (look || keeper_.transitions() != transitions) {
    Publish(clock_.Now());  // whoever asked for it looks, and a step may take long
  }
  // Of what a plan is made of, too little is resident to answer with until the last of it has come.
  const std::vector<BatchShare> shares = keeper_.incomplete() ? std::vector<BatchShare>() : Shares();
  if (!shares.empty()) {
    RunBatch(shares);
  }
  const Time now = clock_.Now();
  step_ms_ = MillisecondsBetween(start, now);
  keeper_.Watch(now, step_ms_);
  inbox_.TellQueue(static_cast<int>(waiting_.size()), waiting_.cells());
  PublishIfDue(now);
  return loaded || !shares.empty();
}

Status EngineLoopImpl::Run() {
  while (!inbox_.Drained(idle(), clock_.Now())) {
    ESPALIER_ASSIGN_OR_RETURN(const bool worked, Step());
    if (!worked) {
      Publish(clock_.Now());
      inbox_.Sleep(std::chrono::duration<double, std::milli>(options_.tick_ms), idle(), clock_.Now());
      if (idle()) {
        inbox_.Gather(std::chrono::duration<double, std::milli>(options_.gather_ms));
      }
    }
  }
  Receive();
  EndAll(FinishReason::kShutdown);
  Publish(clock_.Now());
  return Status::Ok();
}

// --- ends

void EngineLoopImpl::EndWork(Work* work, FinishReason reason, Status status, Time now) {
  const auto found = std::find_if(running_.begin(), running_.end(), [&](const auto& w) { return w.get() == work; });
  ESPALIER_CHECK(found != running_.end());
  std::unique_ptr<Work> owned = std::move(*found);
  running_.erase(found);
  Finish(std::move(owned), reason, std::move(status), now);
}

void EngineLoopImpl::Finish(std::unique_ptr<Work> work, FinishReason reason, Status status, Time now) {
  const bool ended_well = reason == FinishReason::kEndOfText || reason == FinishReason::kLength;
  (ended_well ? counters_.completed : reason == FinishReason::kCancelled ? counters_.cancelled : counters_.failed) += 1;
  RequestEnd end = work->EndAt(now);
  if (work->sequence >= 0) {
    // A cancelled answer is as good a beginning as another.
    const bool keep = reason != FinishReason::kFailed && options_.cache_prompts && work->request.cache_prompt &&
                      work->computed > 0 && work->plan_epoch == keeper_.plan_epoch();
    if (keep) {
      work->tokens.resize(static_cast<size_t>(work->computed));
      finished_.Add(work->sequence, work->tokens);
    } else {
      engine_.RemoveSequence(work->sequence);
    }
  }
  end.reason = reason;
  end.status = std::move(status);
  end.plan_text = engine_.plan().ToText();
  end.loss = keeper_.controller().loss();
  end.plan_changes = work->started != Time() ? static_cast<int>(keeper_.transitions() - work->transitions_at_start) : 0;
  if (observer_ != nullptr) {
    observer_->OnRequestEnd(end);
  }
  work->request.listener->OnEnd(end);
}

void EngineLoopImpl::EndAll(FinishReason reason) {
  const Time now = clock_.Now();
  while (!running_.empty()) {
    EndWork(running_.back().get(), reason, Status::Ok(), now);
  }
  while (!waiting_.empty()) {
    Finish(waiting_.PopFront(), reason, Status::Ok(), now);
  }
}

// --- what is told

void EngineLoopImpl::PublishIfDue(Time now) {
  constexpr std::chrono::milliseconds kEvery(50);
  if (now - published_ >= kEvery) {
    Publish(now);
  }
}

void EngineLoopImpl::Publish(Time now) {
  constexpr std::chrono::seconds kSpeedOver(3);
  published_ = now;
  speed_.emplace_back(now, counters_.generated_tokens);
  while (speed_.size() > 2 && now - speed_[1].first >= kSpeedOver) {
    speed_.pop_front();
  }
  LoopSnapshot s;
  s.seconds = SecondsBetween(began_, now);
  s.limit_bytes = keeper_.reading().bytes;
  s.planned_bytes = keeper_.planned_bytes();
  s.limit_source = keeper_.reading().source;
  s.pressure = keeper_.reading().pressure;
  s.process_bytes = keeper_.controller().process_bytes();
  s.managed = engine_.memory_in_use();
  s.dense_peak_bytes = keeper_.dense_peak_bytes();
  s.minimum_bytes = keeper_.minimum_bytes();
  s.largest_request_cells = keeper_.largest_request_cells();
  s.used_cells = engine_.used_cells();
  s.cached_cells = finished_.cells();
  s.reserved_cells = InFlight().kv_cells;
  s.capacity_cells = engine_.capacity_cells();
  if (snapshot_.plan == nullptr || !(*snapshot_.plan == engine_.plan())) {
    s.plan = std::make_shared<const Plan>(engine_.plan());
  } else {
    s.plan = snapshot_.plan;
  }
  s.pending = keeper_.controller().pending();
  s.loss = keeper_.controller().loss();
  s.policy = policy_name_;
  for (const auto& work : running_) {
    s.requests.push_back(work->View(true));
  }
  for (const auto& work : waiting_) {
    s.requests.push_back(work->View(false));
  }
  s.running = static_cast<int>(running_.size());
  s.waiting = static_cast<int>(waiting_.size());
  s.prompt_tokens = counters_.prompt_tokens;
  s.cached_prompt_tokens = counters_.cached_prompt_tokens;
  s.generated_tokens = counters_.generated_tokens;
  s.completed = counters_.completed;
  s.cancelled = counters_.cancelled;
  s.failed = counters_.failed;
  s.preemptions = counters_.preemptions;
  s.transitions = keeper_.transitions();
  s.steps = counters_.steps;
  s.step_ms = step_ms_;
  s.violations = keeper_.violations();
  s.overshoot_byte_seconds = keeper_.overshoot_byte_seconds();
  const double over = SecondsBetween(speed_.front().first, now);
  s.tokens_per_second = over > 0 ? static_cast<double>(counters_.generated_tokens - speed_.front().second) / over : 0;
  const std::lock_guard lock(snapshot_mutex_);
  snapshot_ = std::move(s);
}

}  // namespace

std::unique_ptr<EngineLoop> EngineLoop::Create(const Parts& parts, const LoopOptions& options) {
  return std::make_unique<EngineLoopImpl>(parts, options);
}

}  // namespace espalier
