#include "serving/kv_tenancy.h"

#include <algorithm>
#include <span>
#include <utility>

#include "base/check.h"

namespace espalier {
namespace {

// Taking a finished sequence over for less is not worth losing it for others.
constexpr int64_t kLeastCommonTokens = 8;

}  // namespace

KvTenancy::~KvTenancy() {
  ESPALIER_CHECK(running_.empty());
  while (Trim()) {
  }
}

Workload KvTenancy::InFlight() const {
  Workload in_flight = Workload::None();
  for (const auto& work : running_) {
    in_flight += work->workload();
  }
  return in_flight;
}

bool KvTenancy::Trim() {
  const auto sequence = finished_.TakeOldest();
  if (!sequence) {
    return false;
  }
  engine_.RemoveSequence(*sequence);
  return true;
}

bool KvTenancy::Preempt() {
  if (running_.empty()) {
    return false;
  }
  std::unique_ptr<Work> work = std::move(running_.back());
  running_.pop_back();
  GiveUpKv(*work);
  ++work->preemptions;
  ++preemptions_;
  waiting_.Return(std::move(work));
  return true;
}

std::vector<SequenceId> KvTenancy::Sequences() const {
  std::vector<SequenceId> sequences = finished_.sequences();
  for (const auto& work : running_) {
    sequences.push_back(work->sequence);
  }
  return sequences;
}

void KvTenancy::Begin(std::unique_ptr<Work> work, int64_t plan_epoch) {
  Place(*work, plan_epoch);
  // One that waited for a larger limit is older than some that did not have to: it is not the first to give way.
  const auto younger = std::find_if(running_.begin(), running_.end(), [&](const auto& w) { return w->id > work->id; });
  running_.insert(younger, std::move(work));
}

void KvTenancy::Restart(Work& work, int64_t plan_epoch) {
  GiveUpKv(work);
  Place(work, plan_epoch);
}

// After a change of plan nobody goes on in what was computed under another one, unless he computed it himself.
void KvTenancy::FollowPlan(int64_t plan_epoch) {
  if (finished_epoch_ == plan_epoch) {
    return;
  }
  finished_epoch_ = plan_epoch;
  while (Trim()) {
  }
  for (const auto& work : running_) {
    if (work->taken_tokens == work->computed) {
      Restart(*work, plan_epoch);
    }
  }
}

std::unique_ptr<Work> KvTenancy::End(const Work& work, bool keep, int64_t plan_epoch) {
  const auto found = std::find_if(running_.begin(), running_.end(), [&](const auto& w) { return w.get() == &work; });
  ESPALIER_CHECK(found != running_.end());
  std::unique_ptr<Work> ended = std::move(*found);
  running_.erase(found);
  if (keep && ended->request.cache_prompt && ended->computed > 0 && ended->plan_epoch == plan_epoch) {
    finished_.Add(ended->sequence, {ended->tokens.begin(), ended->tokens.begin() + ended->computed});
    ended->sequence = -1;
    ended->computed = 0;
  } else {
    GiveUpKv(*ended);
  }
  return ended;
}

Work* KvTenancy::FindRunning(RequestId id) const {
  const auto found = std::find_if(running_.begin(), running_.end(), [&](const auto& work) { return work->id == id; });
  return found != running_.end() ? found->get() : nullptr;
}

void KvTenancy::GiveUpKv(Work& work) {
  if (work.sequence >= 0) {
    engine_.RemoveSequence(work.sequence);
  }
  work.sequence = -1;
  work.computed = 0;
}

// Gives the work a sequence: a finished one that begins alike, or an empty one.
void KvTenancy::Place(Work& work, int64_t plan_epoch) {
  work.plan_epoch = plan_epoch;
  work.taken_tokens = 0;
  if (work.request.cache_prompt && !work.request.prompt_scores && finished_epoch_ == plan_epoch) {
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

void KvTenancy::MakeRoomForASequence() {
  const auto most = static_cast<size_t>(engine_.options().max_sequences);
  while (running_.size() + finished_.size() >= most && Trim()) {
  }
}

}  // namespace espalier
