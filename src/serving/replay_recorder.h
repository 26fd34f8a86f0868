// Listens to a replay: to its requests, to memory, and to the loop between steps.
#pragma once

#include <cstdint>
#include <map>
#include <memory>

#include "serving/replay.h"

namespace espalier {

// Thread rule: the replay's thread.
class ReplayRecorder {
 public:
  ReplayRecorder(const LoopClock* clock, const ReplayOptions& options, double expected_seconds);

  // A listener for a request that came at `due`. It keeps the recorder alive, so it may outlive the replay.
  static std::shared_ptr<RequestListener> Listen(const std::shared_ptr<ReplayRecorder>& recorder, LoopClock::Time due);
  void OnEvent(const ServingEvent& event);
  // After each step; tokens since the last one belong to the plan of `snapshot`. `busy`: the seconds that the step
  // took, if it computed something.
  void OnStep(const LoopSnapshot& snapshot, double busy);
  void OnRequest() { ++report_.requests; }
  void OnRefusal(const Status& status);

  int64_t in_flight() const { return report_.requests - report_.refused - ended_; }
  LoopClock::Time start() const { return start_; }
  // What `last` counted since `first` is added; the rest was heard.
  ReplayReport Finish(const LoopSnapshot& first, const LoopSnapshot& last);

 private:
  class Listener;
  double Since(LoopClock::Time time) const;
  void OnEnd(const RequestEnd& end, double seconds);

  const LoopClock* clock_;
  const double late_seconds_;
  const double good_loss_;
  const LoopClock::Time start_;
  ReplayReport report_;
  int64_t ended_ = 0;
  LatencySample first_token_;
  LatencySample inter_token_;
  LatencySample total_;
  MoveCounter moves_;
  ReplayCourse course_;
  int64_t new_tokens_ = 0;  // since the last step
  int64_t known_tokens_ = 0;
  double loss_sum_ = 0;
};

}  // namespace espalier
