// Accuracies of tasks, groups of tasks and sets of tasks.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "eval/statistics.h"
#include "eval/task_likelihoods.h"
#include "eval/task_requests.h"
#include "eval/tasks.h"
#include "runtime/engine.h"

namespace espalier {

struct Accuracies {
  Estimate acc;
  std::optional<Estimate> acc_norm;  // only if every item counted has it
};

// Errors are the harness's: the standard deviation of the sample over sqrt(items).
struct TaskScore {
  std::string set;
  std::string group;
  std::string task;
  int64_t items = 0;
  int64_t truncated_requests = 0;
  Accuracies accuracies;
};

// Mean of tasks' accuracies, every task counting the same however many items it has (the harness's rule for BLiMP,
// weight_by_size: false); error sqrt(sum of squared errors) / tasks.
struct MeanScore {
  std::string set;
  std::string group;  // empty: the whole set
  int64_t tasks = 0;
  Accuracies accuracies;
};

struct TaskSummary {
  std::vector<TaskScore> tasks;      // in the order in which they first appear; likewise below
  std::vector<MeanScore> groups;     // of tasks that name one
  std::vector<MeanScore> sets;       // those of more than one task
  std::optional<MeanScore> average;  // of several sets, each counting the same (`tasks` is the number of sets)
};

// REQUIRES: likelihoods[i] are those of items[i], and encoded[i] its tokens.
TaskSummary SummariseTasks(std::span<const TaskItem> items, std::span<const EncodedItem> encoded,
                           std::span<const std::vector<double>> log_likelihoods);

struct TaskReport {
  std::string model;         // general.name
  std::string quantization;  // "Q4_K_M"
  std::string plan;          // text form; "dense"
  int64_t context_tokens = 0;
  int64_t items = 0;
  int64_t requests = 0;
  int64_t truncated_requests = 0;
  TaskSummary summary;
  TaskLikelihoods likelihoods;
  double elapsed_ms = 0;
};

// Scores the items under the plan that the engine holds; fails as ScoreItems does. `context_tokens` is what the items
// were encoded for.
Result<TaskReport> MeasureTasks(Engine* engine, std::span<const TaskItem> items, std::span<const EncodedItem> encoded,
                                int64_t context_tokens, const TaskProgress& progress = {});

}  // namespace espalier
