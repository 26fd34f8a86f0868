// Zero-shot tasks by the rules of lm-evaluation-harness (0.4.13): what is asked of a model, and what counts as right.
//
// An item is a choice between requests, each a continuation whose log-likelihood given a context is asked for.
//   acc       the likeliest continuation is the right one
//   acc_norm  the same after division by the number of characters (not bytes, not tokens) of the choice
// Of equals the first is picked, as by numpy's argmax.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

struct TaskRequest {
  std::string context;  // may be empty: BOS then stands in its place
  std::string continuation;
};

struct TaskItem {
  std::string set;    // what it was read from: scores are averaged over a set's tasks
  std::string task;   // scores are counted per task
  std::string group;  // of tasks in a set, averaged likewise; may be empty
  std::vector<TaskRequest> requests;
  std::vector<int64_t> characters;  // of each choice; empty where the task has no acc_norm
  size_t gold = 0;                  // index of the right one
};

// The harness puts it between context and continuation, even where the context is empty.
inline constexpr std::string_view kTaskDelimiter = " ";

// One context, several continuations; with acc_norm. The caller fills in names and gold.
TaskItem ChooseContinuation(const std::string& context, std::span<const std::string> choices,
                            std::string_view delimiter = kTaskDelimiter);

// Several contexts, one continuation: partial scoring, as of winogrande, where the choice fills a blank and what
// follows the blank is scored. No acc_norm.
TaskItem ChooseContext(std::span<const std::string> contexts, const std::string& continuation,
                       std::string_view delimiter = kTaskDelimiter);

struct ItemVerdict {
  size_t picked = 0;
  size_t picked_norm = 0;  // as `picked` where the task has no acc_norm
};
// REQUIRES: as many log-likelihoods as requests, at least one, none NaN.
ItemVerdict JudgeItem(const TaskItem& item, std::span<const double> log_likelihoods);

}  // namespace espalier
