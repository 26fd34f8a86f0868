// Whose KV the engine holds: that of requests that run, and what finished ones left for those that begin alike.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/engine.h"
#include "serving/finished_sequences.h"
#include "serving/memory_keeper.h"
#include "serving/waiting_queue.h"
#include "serving/work.h"

namespace espalier {

// A work runs from Begin until End, or until it is preempted, and has a sequence of the engine exactly as long. There
// are never more sequences than the engine may have, as long as no more works run than that.
//
// `plan_epoch` is MemoryKeeper's at the moment of the call. A work may go on in what it computed itself under an
// earlier plan, but in what others computed only under the plan they had.
//
// Thread rule: the loop's thread.
class KvTenancy final : public KvTenants {
 public:
  // Both must outlive the tenancy. Whoever is preempted waits in `waiting`.
  KvTenancy(Engine* engine, WaitingQueue* waiting) : engine_(*engine), waiting_(*waiting) {}
  // Gives the KV of finished requests back: the engine may live on. REQUIRES: nobody runs.
  ~KvTenancy() override;

  Workload InFlight() const override;
  Workload Finished() const override { return finished_.Held(); }
  bool Trim() override;
  bool Preempt() override;
  std::vector<SequenceId> Sequences() const override;

  // The work runs from now on: in a finished sequence that begins alike, whose tokens count as computed, or in an empty
  // one.
  void Begin(std::unique_ptr<Work> work, int64_t plan_epoch);
  // A running work forgets all that is computed of it, and begins once more.
  void Restart(Work& work, int64_t plan_epoch);
  // What was computed under another plan is given back, and works that so far have nothing but what they took over of
  // it begin once more. No-op while the plan is the one of the last call.
  void FollowPlan(int64_t plan_epoch);
  // The work runs no more. If `keep`, if its request allows it, and if all of it was computed under the present plan,
  // its KV stays for those that begin alike. REQUIRES: it runs.
  std::unique_ptr<Work> End(const Work& work, bool keep, int64_t plan_epoch);

  // In the order of submission: the youngest last.
  const std::vector<std::unique_ptr<Work>>& running() const { return running_; }
  // nullptr if it does not run.
  Work* FindRunning(RequestId id) const;
  int64_t finished_cells() const { return finished_.cells(); }
  int64_t preemptions() const { return preemptions_; }

 private:
  void GiveUpKv(Work& work);
  void Place(Work& work, int64_t plan_epoch);
  void MakeRoomForASequence();

  Engine& engine_;
  WaitingQueue& waiting_;
  std::vector<std::unique_ptr<Work>> running_;
  FinishedSequences finished_;
  int64_t finished_epoch_ = 0;  // of the plan under which finished_ were computed
  SequenceId next_sequence_ = 0;
  int64_t preemptions_ = 0;
};

}  // namespace espalier
