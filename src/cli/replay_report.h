// The report of espalier replay in its three forms.
#pragma once

#include <optional>
#include <string>

#include "cli/json.h"
#include "cli/placement.h"
#include "serving/load_trace.h"
#include "serving/replay.h"

namespace espalier {

struct ReplayedRun {
  std::string trace_path;
  LoadTrace trace;
  const Model* model = nullptr;          // outlives this, as does `placement`
  const Placement* placement = nullptr;  // with which the run began
  LoopOptions loop;
  double speed = 1;
  bool real_time = false;
  double late_seconds = 0;
  std::optional<double> good_loss;  // empty: every token is good
  ReplayReport report;
};

Json ToJson(const ReplayedRun& run);
void PrintText(const ReplayedRun& run);
// One page, without anything from elsewhere. It is well-formed XML too.
std::string ToHtml(const ReplayedRun& run);

}  // namespace espalier
