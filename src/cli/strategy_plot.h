// What a StratNet learned, as a drawing that stands alone.
#pragma once

#include <string>
#include <vector>

namespace espalier {

// A plan at one workload.
struct PlottedPlan {
  double size = 0;  // share of the bytes that depend on the plan
  double loss = 0;  // nats per token
  std::string plan;
};

struct PlottedWorkload {
  std::string title;
  std::vector<PlottedPlan> measured;
  // The network's answers to preferences, from small to large.
  std::vector<PlottedPlan> answers;
};

// One plot for each workload: every plan that was measured, the front among them, and the network's answers. Losses are
// logarithmic; plans that lose nothing are left out.
std::string StrategyPlot(const std::vector<PlottedWorkload>& workloads, const std::string& title);

}  // namespace espalier
