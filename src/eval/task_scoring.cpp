#include "eval/task_scoring.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "base/stopwatch.h"

namespace espalier {
namespace {

struct Hits {
  int64_t items = 0;
  int64_t normalised = 0;  // items that have acc_norm
  int64_t acc = 0;
  int64_t acc_norm = 0;

  Accuracies accuracies() const {
    Accuracies result;
    result.acc = ShareOf(acc, items);
    if (normalised == items) {
      result.acc_norm = ShareOf(acc_norm, items);
    }
    return result;
  }
};

Estimate MeanOf(std::span<const Estimate> parts) {
  double sum = 0;
  double squares = 0;
  for (const Estimate& part : parts) {
    sum += part.value;
    squares += part.error * part.error;
  }
  const auto count = static_cast<double>(parts.size());
  return {sum / count, std::sqrt(squares) / count};
}

// REQUIRES: parts is not empty.
Accuracies MeanOf(const std::vector<Accuracies>& parts) {
  std::vector<Estimate> acc;
  std::vector<Estimate> acc_norm;
  for (const Accuracies& part : parts) {
    acc.push_back(part.acc);
    if (part.acc_norm) {
      acc_norm.push_back(*part.acc_norm);
    }
  }
  Accuracies mean;
  mean.acc = MeanOf(acc);
  if (acc_norm.size() == parts.size()) {
    mean.acc_norm = MeanOf(acc_norm);
  }
  return mean;
}

// The means over tasks that `key` gives the same (set, group), in order of appearance. Tasks for which it gives nothing
// are left out.
template <class KeyFunction>
std::vector<MeanScore> MeansBy(std::span<const TaskScore> tasks, KeyFunction key) {
  std::vector<MeanScore> means;
  std::vector<std::vector<Accuracies>> parts;
  std::map<std::pair<std::string, std::string>, size_t> places;
  for (const TaskScore& task : tasks) {
    const std::optional<std::pair<std::string, std::string>> found = key(task);
    if (!found) {
      continue;
    }
    const auto [place, is_new] = places.emplace(*found, means.size());
    if (is_new) {
      MeanScore& mean = means.emplace_back();
      std::tie(mean.set, mean.group) = *found;
      parts.emplace_back();
    }
    parts[place->second].push_back(task.accuracies);
  }
  for (size_t i = 0; i < means.size(); ++i) {
    means[i].tasks = static_cast<int64_t>(parts[i].size());
    means[i].accuracies = MeanOf(parts[i]);
  }
  return means;
}

std::vector<TaskScore> ScoreTasks(std::span<const TaskItem> items, std::span<const EncodedItem> encoded,
                                  std::span<const std::vector<double>> log_likelihoods) {
  std::vector<TaskScore> tasks;
  std::vector<Hits> hits;
  std::map<std::pair<std::string, std::string>, size_t> places;
  for (size_t i = 0; i < items.size(); ++i) {
    const TaskItem& item = items[i];
    const auto [place, is_new] = places.emplace(std::pair(item.set, item.task), tasks.size());
    if (is_new) {
      TaskScore& task = tasks.emplace_back();
      task.set = item.set;
      task.group = item.group;
      task.task = item.task;
      hits.emplace_back();
    }
    Hits& hit = hits[place->second];
    const ItemVerdict verdict = JudgeItem(item, log_likelihoods[i]);
    ++hit.items;
    hit.normalised += !item.characters.empty();
    hit.acc += verdict.picked == item.gold;
    hit.acc_norm += verdict.picked_norm == item.gold;
    tasks[place->second].truncated_requests +=
        std::count_if(encoded[i].requests.begin(), encoded[i].requests.end(),
                      [](const EncodedRequest& request) { return request.truncated; });
  }
  for (size_t i = 0; i < tasks.size(); ++i) {
    tasks[i].items = hits[i].items;
    tasks[i].accuracies = hits[i].accuracies();
  }
  return tasks;
}

}  // namespace

TaskSummary SummariseTasks(std::span<const TaskItem> items, std::span<const EncodedItem> encoded,
                           std::span<const std::vector<double>> log_likelihoods) {
  ESPALIER_CHECK(items.size() == encoded.size() && items.size() == log_likelihoods.size());
  TaskSummary summary;
  summary.tasks = ScoreTasks(items, encoded, log_likelihoods);
  summary.groups = MeansBy(summary.tasks, [](const TaskScore& task) {
    return task.group.empty() ? std::nullopt : std::optional(std::pair(task.set, task.group));
  });
  summary.sets =
      MeansBy(summary.tasks, [](const TaskScore& task) { return std::optional(std::pair(task.set, std::string())); });
  if (summary.sets.size() > 1) {
    std::vector<Accuracies> parts;
    for (const MeanScore& set : summary.sets) {
      parts.push_back(set.accuracies);
    }
    MeanScore& average = summary.average.emplace();
    average.tasks = static_cast<int64_t>(parts.size());
    average.accuracies = MeanOf(parts);
  }
  std::erase_if(summary.sets, [](const MeanScore& set) { return set.tasks < 2; });
  return summary;
}

Result<TaskReport> MeasureTasks(Engine* engine, std::span<const TaskItem> items, std::span<const EncodedItem> encoded,
                                int64_t context_tokens, const TaskProgress& progress) {
  const Stopwatch watch;
  TaskReport report;
  ESPALIER_ASSIGN_OR_RETURN(report.likelihoods, ScoreItems(engine, encoded, progress));
  report.summary = SummariseTasks(items, encoded, report.likelihoods.values);
  report.model = engine->model().display_name();
  report.quantization = engine->model().quantization();
  report.plan = engine->plan().ToText();
  report.context_tokens = context_tokens;
  report.items = static_cast<int64_t>(items.size());
  for (const EncodedItem& item : encoded) {
    report.requests += static_cast<int64_t>(item.requests.size());
  }
  for (const TaskScore& task : report.summary.tasks) {
    report.truncated_requests += task.truncated_requests;
  }
  report.elapsed_ms = watch.Milliseconds();
  return report;
}

}  // namespace espalier
