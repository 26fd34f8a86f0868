#include "cli/eval_tasks.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <span>
#include <utility>

#include "base/bytes.h"
#include "base/file.h"
#include "cli/number_check.h"
#include "cli/task_file.h"
#include "model/quote.h"

namespace espalier {
namespace {

void Add(Json& json, const Accuracies& accuracies) {
  json["acc"] = accuracies.acc.value;
  json["acc_error"] = accuracies.acc.error;
  json["acc_norm"] = accuracies.acc_norm ? Json(accuracies.acc_norm->value) : Json();
  json["acc_norm_error"] = accuracies.acc_norm ? Json(accuracies.acc_norm->error) : Json();
}

Json ToJson(const TaskScore& score) {
  Json json = {{"set", score.set},
               {"group", score.group.empty() ? Json() : Json(score.group)},
               {"task", score.task},
               {"items", score.items},
               {"truncated_requests", score.truncated_requests}};
  Add(json, score.accuracies);
  return json;
}

Json ToJson(const MeanScore& score) {
  Json json = {{"set", score.set}, {"group", score.group.empty() ? Json() : Json(score.group)}, {"tasks", score.tasks}};
  Add(json, score.accuracies);
  return json;
}

template <class Score>
Json ArrayOf(const std::vector<Score>& scores) {
  Json array = Json::array();
  for (const Score& score : scores) {
    array.push_back(ToJson(score));
  }
  return array;
}

// One line of JSON per item, in the order of the files.
Status WriteSamples(AtomicFileWriter* file, const TaskRun& run, const TaskReport& report) {
  for (size_t i = 0; i < run.items.size(); ++i) {
    const TaskItem& item = run.items[i];
    const auto& log_likelihoods = report.likelihoods.values[i];
    const ItemVerdict verdict = JudgeItem(item, log_likelihoods);
    Json requests = Json::array();
    for (size_t r = 0; r < item.requests.size(); ++r) {
      const EncodedRequest& encoded = run.encoded[i].requests[r];
      Json request = {{"context", item.requests[r].context},
                      {"continuation", item.requests[r].continuation},
                      {"tokens", encoded.tokens},
                      {"context_tokens", encoded.n_context},
                      {"truncated", encoded.truncated},
                      {"log_likelihood_nats", log_likelihoods[r]}};
      if (!item.characters.empty()) {
        request["characters"] = item.characters[r];
      }
      requests.push_back(std::move(request));
    }
    Json sample = {{"set", item.set},
                   {"task", item.task},
                   {"gold", item.gold},
                   {"requests", requests},
                   {"acc", verdict.picked == item.gold ? 1 : 0}};
    sample["acc_norm"] = item.characters.empty() ? Json() : Json(verdict.picked_norm == item.gold ? 1 : 0);
    const std::string line = sample.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    ESPALIER_RETURN_IF_ERROR(file->Append(std::as_bytes(std::span(line))));
  }
  return file->Commit();
}

void PrintRow(const std::string& name, std::string_view count, const Accuracies& accuracies) {
  const auto figure = [](const Estimate& e) { return fmt::format("{:.4f} +/- {:.4f}", e.value, e.error); };
  fmt::print("{:<54} {:>9}   {}   {}\n", name, count, figure(accuracies.acc),
             accuracies.acc_norm ? figure(*accuracies.acc_norm) : "-");
}

}  // namespace

CLI::Option* AddTaskFlags(CLI::App& app, TaskFlags& flags) {
  const char* const kGroup = "Zero-shot tasks";
  auto* tasks = app.add_option("--tasks", flags.files,
                               "Accuracy on these tasks, by lm-evaluation-harness's rules: JSONL files, separated by "
                               "commas (docs/formats/tasks.md)")
                    ->delimiter(',')
                    ->allow_extra_args(false)
                    ->group(kGroup);
  app.add_option("--limit", flags.limit, "Items of each task, the first ones; 0: all")
      ->check(AtLeast(0))
      ->capture_default_str()
      ->needs(tasks)
      ->group(kGroup);
  app.add_option("--samples", flags.samples, "Write every item's log-likelihoods to this file, as JSONL")
      ->needs(tasks)
      ->group(kGroup);
  return tasks;
}

Result<TaskRun> ReadTasks(const TaskFlags& flags, const Model& model, const Tokenizer& tokenizer,
                          int64_t context_tokens) {
  TaskRun run;
  const int64_t n_ctx_train = model.hparams().n_ctx_train;
  run.context_tokens = context_tokens > 0 ? context_tokens : n_ctx_train;
  if (run.context_tokens > n_ctx_train) {
    return InvalidArgument(
        fmt::format("context of {} tokens: the model was trained for {}", run.context_tokens, n_ctx_train));
  }
  for (const std::string& file : flags.files) {
    ESPALIER_ASSIGN_OR_RETURN(auto items, ReadTaskFile(file, flags.limit));
    const std::string& set = items.front().set;
    if (std::any_of(run.items.begin(), run.items.end(), [&set](const TaskItem& item) { return item.set == set; })) {
      return InvalidArgument(fmt::format("task file {}: a set named {} was read already", Quote(file), Quote(set)));
    }
    run.items.insert(run.items.end(), std::make_move_iterator(items.begin()), std::make_move_iterator(items.end()));
  }
  ESPALIER_ASSIGN_OR_RETURN(run.encoded, EncodeItems(tokenizer, run.items, run.context_tokens));
  return run;
}

Result<TaskReport> RunTasks(const TaskFlags& flags, const TaskRun& run, Engine* engine) {
  std::unique_ptr<AtomicFileWriter> samples;
  if (!flags.samples.empty()) {  // before the work is done, which a path that cannot be written would lose
    ESPALIER_ASSIGN_OR_RETURN(samples, AtomicFileWriter::Create(flags.samples));
  }
  ProgressBar bar(fmt::format("scoring {} items", run.items.size()));
  ESPALIER_ASSIGN_OR_RETURN(
      TaskReport report,
      MeasureTasks(engine, run.items, run.encoded, run.context_tokens, [&bar](int64_t done, int64_t total) {
        bar.Update(static_cast<uint64_t>(done), static_cast<uint64_t>(total));
      }));
  if (samples != nullptr) {
    ESPALIER_RETURN_IF_ERROR(WriteSamples(samples.get(), run, report));
  }
  return report;
}

Json ReportOf(const TaskReport& report) {
  const TaskLikelihoods& likelihoods = report.likelihoods;
  return {{"model", report.model},
          {"quantization", report.quantization},
          {"plan", report.plan},
          {"rules", "lm-evaluation-harness"},
          {"context_tokens", report.context_tokens},
          {"items", report.items},
          {"requests", report.requests},
          {"truncated_requests", report.truncated_requests},
          {"tasks", ArrayOf(report.summary.tasks)},
          {"groups", ArrayOf(report.summary.groups)},
          {"sets", ArrayOf(report.summary.sets)},
          {"average", report.summary.average ? ToJson(*report.summary.average) : Json()},
          {"computed_tokens", likelihoods.tokens_computed},
          {"batches", likelihoods.batches},
          {"managed_bytes", likelihoods.managed_bytes},
          {"elapsed_ms", report.elapsed_ms}};
}

void PrintText(const TaskReport& report) {
  const TaskSummary& summary = report.summary;
  fmt::print(
      "{} {}, plan {}\nzero-shot by lm-evaluation-harness's rules, context of {} tokens, {} of {} requests cut\n",
      Printable(report.model), report.quantization, report.plan, report.context_tokens, report.truncated_requests,
      report.requests);
  fmt::print("{:<54} {:>9}   {:<17}   {}\n", "", "items", "acc", "acc_norm");
  for (const TaskScore& task : summary.tasks) {
    const bool alone = task.task == task.set;
    PrintRow(Printable(alone ? task.task : fmt::format("{}: {}", task.set, task.task), 54), std::to_string(task.items),
             task.accuracies);
  }
  const auto mean_row = [](const std::string& name, const MeanScore& mean, std::string_view of) {
    PrintRow(Printable(name, 54), fmt::format("{} {}{}", mean.tasks, of, mean.tasks == 1 ? "" : "s"), mean.accuracies);
  };
  for (const MeanScore& group : summary.groups) {
    mean_row(fmt::format("mean of {}: {}", group.set, group.group), group, "task");
  }
  for (const MeanScore& set : summary.sets) {
    mean_row(fmt::format("mean of {}", set.set), set, "task");
  }
  if (summary.average) {
    mean_row("mean of all files", *summary.average, "file");
  }
  fmt::print("managed {}, {:.1f} s, {:.1f} items/s\n", FormatBytes(report.likelihoods.managed_bytes),
             report.elapsed_ms / 1000, static_cast<double>(report.items) / (report.elapsed_ms / 1000));
}

}  // namespace espalier
