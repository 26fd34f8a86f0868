// espalier eval --tasks: zero-shot accuracy.
#pragma once

#include <CLI/CLI.hpp>

#include <string>
#include <vector>

#include "base/status.h"
#include "cli/json.h"
#include "cli/progress.h"
#include "eval/task_scoring.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace espalier {

// --tasks, --limit, --samples.
struct TaskFlags {
  std::vector<std::string> files;
  int64_t limit = 0;
  std::string samples;
  bool given() const { return !files.empty(); }
};
// Returns --tasks.
CLI::Option* AddTaskFlags(CLI::App& app, TaskFlags& flags);

// Items and their tokens.
struct TaskRun {
  std::vector<TaskItem> items;
  std::vector<EncodedItem> encoded;
  int64_t context_tokens = 0;
};
// `context_tokens`: what a request may read at most; 0: the model's training context, which is the limit.
Result<TaskRun> ReadTasks(const TaskFlags& flags, const Model& model, const Tokenizer& tokenizer,
                          int64_t context_tokens);

// Scores with a progress bar, and writes --samples.
Result<TaskReport> RunTasks(const TaskFlags& flags, const TaskRun& run, Engine* engine);

Json ReportOf(const TaskReport& report);
void PrintText(const TaskReport& report);

}  // namespace espalier
