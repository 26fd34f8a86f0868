// Scenarios: the workloads and budgets that policies are compared at.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "memory/budget.h"
#include "model/footprint.h"
#include "model/workload.h"

namespace espalier {

struct Scenario {
  Workload workload;
  std::vector<Budget> budgets;

  friend bool operator==(const Scenario&, const Scenario&) = default;
};

// The ten workloads of the RAP paper's evaluation (arXiv 2505.17138), 1x4096 to 8x4096, each at 90, 80, 70 and 60 % of
// its dense peak.
std::vector<Scenario> PaperScenarios();

// The same for a model of another size: batch sizes stay, and tokens are scaled so that the KV cache of the dense model
// takes 0.05 (4096 tokens in all) to 4 times (32768) the bytes of the weights, as it does for the paper's models.
// Footprints depend on the cells in all; a single sequence can come out longer than the model's training context.
// REQUIRES: the model has attention blocks with a KV cache.
std::vector<Scenario> ScaledScenarios(const MemoryModel& memory);

// One scenario in each line: "8x512 90% 80% 700MiB" (workload, then budgets); '#' starts a comment. Errors name
// `source`, the line and the field. Fails if there is none, if one has no budget, and on more than 1000 scenarios.
Result<std::vector<Scenario>> ParseScenarios(std::string_view text, const std::string& source);

// Indices of scenarios that differ in bytes, smallest number of KV cells first: of several within 5 % of each other in
// cells, the first. What depends on bytes alone (fronts, plots) need not be shown for each.
std::vector<size_t> DistinctInCells(const std::vector<Scenario>& scenarios);

// KV bytes of the dense model at this workload, over the bytes of its weights.
double KvToWeights(const MemoryModel& memory, const Workload& workload);

}  // namespace espalier
