// What was in flight lately: requests come and go, and the room that the last ones had is often what the next ones
// need.
#pragma once

#include <deque>

#include "model/workload.h"
#include "serving/loop_time.h"

namespace espalier {

// Thread rule: one thread at a time. REQUIRES: times that do not go back.
class RecentWorkloads {
 public:
  static constexpr double kRemembered = 10;  // workloads are remembered for so many times `hold_ms`

  explicit RecentWorkloads(double hold_ms);

  // `workload` is in flight now.
  void Observe(const Workload& workload, LoopTime now);
  // As though nothing else had ever been.
  void Reset(const Workload& workload, LoopTime now);

  // The least that everything was within that was in flight in the last `hold_ms`. REQUIRES: something was observed.
  Workload Held(LoopTime now) const;
  // Of all that is remembered.
  Workload Remembered() const;

 private:
  struct Peak {
    LoopTime at;
    Workload workload;
  };
  const LoopTime::duration hold_;
  const LoopTime::duration remembered_;
  std::deque<Peak> peaks_;  // none within one after it; `at`: last seen
};

}  // namespace espalier
