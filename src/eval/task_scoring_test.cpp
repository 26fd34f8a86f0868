#include "eval/task_scoring.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "eval/fake_engine_for_test.h"

namespace espalier::test {
namespace {

// An item of two choices of 1 and 10 characters. `right` by the sum, `right_norm` by the sum per character.
struct Case {
  TaskItem item;
  EncodedItem encoded;
  std::vector<double> log_likelihoods;
};

Case MakeCase(const std::string& set, const std::string& group, const std::string& task, bool right, bool right_norm) {
  Case made;
  made.item = ChooseContinuation("", std::array<std::string, 2>{"a", "bbbbbbbbbb"});
  made.item.set = set;
  made.item.group = group;
  made.item.task = task;
  // Sums -2, -1: the second by both. -2, -3: the first by the sum, the second per character. -1, -20: the first by
  // both.
  const bool both = right == right_norm;
  made.log_likelihoods = both ? std::vector{-1.0, -20.0} : std::vector{-2.0, -3.0};
  made.item.gold = right ? 0 : 1;
  made.encoded.requests.resize(2);
  return made;
}

struct Cases {
  std::vector<TaskItem> items;
  std::vector<EncodedItem> encoded;
  std::vector<std::vector<double>> log_likelihoods;

  void Add(const Case& one) {
    items.push_back(one.item);
    encoded.push_back(one.encoded);
    log_likelihoods.push_back(one.log_likelihoods);
  }
  TaskSummary Summary() const { return SummariseTasks(items, encoded, log_likelihoods); }
};

TEST(SummariseTasks, CountsSharesWithTheErrorOfTheSample) {
  Cases cases;
  for (const auto& [right, right_norm] : {std::pair(true, true), {true, false}, {true, false}, {false, false}}) {
    cases.Add(MakeCase("piqa", "", "piqa", right, right_norm));
  }
  cases.encoded[1].requests[0].truncated = true;
  cases.encoded[3].requests[0].truncated = true;
  cases.encoded[3].requests[1].truncated = true;
  const TaskSummary summary = cases.Summary();
  ASSERT_EQ(summary.tasks.size(), 1u);
  EXPECT_EQ(summary.tasks[0].items, 4);
  EXPECT_EQ(summary.tasks[0].truncated_requests, 3);
  EXPECT_EQ(summary.tasks[0].accuracies.acc.value, 0.75);
  EXPECT_NEAR(summary.tasks[0].accuracies.acc.error, std::sqrt(0.75 * 0.25 / 3), 1e-12);
  EXPECT_EQ(summary.tasks[0].accuracies.acc_norm->value, 0.25);
  EXPECT_TRUE(summary.groups.empty());
  EXPECT_TRUE(summary.sets.empty());
  EXPECT_FALSE(summary.average);
}

// One task of 4 items (all right) and one of 2 (one right), in one group; a task of 2 (none right) in another.
Cases ThreeTasks() {
  Cases cases;
  for (int i = 0; i < 4; ++i) {
    cases.Add(MakeCase("blimp", "islands", "adjunct", true, true));
  }
  cases.Add(MakeCase("blimp", "binding", "principle", false, false));
  cases.Add(MakeCase("blimp", "islands", "wh", true, true));
  cases.Add(MakeCase("blimp", "binding", "principle", false, false));
  cases.Add(MakeCase("blimp", "islands", "wh", false, false));
  return cases;
}

TEST(SummariseTasks, AveragesTasksWhateverTheirSize) {
  const TaskSummary summary = ThreeTasks().Summary();
  ASSERT_EQ(summary.tasks.size(), 3u);
  EXPECT_EQ(summary.tasks[1].task, "principle");
  ASSERT_EQ(summary.groups.size(), 2u);
  EXPECT_EQ(summary.groups[0].group, "islands");
  EXPECT_EQ(summary.groups[0].tasks, 2);
  EXPECT_EQ(summary.groups[0].accuracies.acc.value, 0.75);              // (1 + 0.5) / 2, not 5 / 6
  EXPECT_NEAR(summary.groups[0].accuracies.acc.error, 0.5 / 2, 1e-12);  // sqrt(0^2 + 0.5^2) / 2
  EXPECT_EQ(summary.groups[1].group, "binding");
  EXPECT_EQ(summary.groups[1].accuracies.acc.value, 0);
  ASSERT_EQ(summary.sets.size(), 1u);
  EXPECT_EQ(summary.sets[0].set, "blimp");
  EXPECT_EQ(summary.sets[0].tasks, 3);
  EXPECT_EQ(summary.sets[0].accuracies.acc.value, 0.5);
  EXPECT_FALSE(summary.average);
}

TEST(SummariseTasks, AveragesSetsWhateverTheirTasks) {
  Cases cases = ThreeTasks();
  cases.Add(MakeCase("piqa", "", "piqa", true, true));
  const TaskSummary summary = cases.Summary();
  ASSERT_EQ(summary.sets.size(), 1u);  // piqa is a task of its own
  ASSERT_TRUE(summary.average);
  EXPECT_EQ(summary.average->tasks, 2);
  EXPECT_EQ(summary.average->accuracies.acc.value, 0.75);
}

TEST(SummariseTasks, TasksOfOneNameInTwoSetsAreTwo) {
  Cases cases;
  cases.Add(MakeCase("a", "", "same", true, true));
  cases.Add(MakeCase("b", "", "same", false, false));
  const TaskSummary summary = cases.Summary();
  ASSERT_EQ(summary.tasks.size(), 2u);
  EXPECT_EQ(summary.tasks[0].accuracies.acc.value, 1);
  EXPECT_EQ(summary.tasks[1].accuracies.acc.value, 0);
}

TEST(SummariseTasks, HasAccNormOnlyWhereAllItemsHave) {
  Cases cases;
  cases.Add(MakeCase("set", "", "a", true, true));
  cases.Add(MakeCase("set", "", "a", true, true));
  cases.Add(MakeCase("set", "", "b", true, true));
  cases.items[1].characters.clear();
  const TaskSummary summary = cases.Summary();
  EXPECT_FALSE(summary.tasks[0].accuracies.acc_norm);
  EXPECT_TRUE(summary.tasks[1].accuracies.acc_norm);
  EXPECT_FALSE(summary.sets[0].accuracies.acc_norm);
}

TEST(MeasureTasks, JudgesWhatTheEngineSays) {
  // After 0 the engine expects 1.
  std::vector<TaskItem> items(2, ChooseContinuation("", std::array<std::string, 2>{"x", "y"}));
  items[0].gold = 1;
  const EncodedItem encoded = {{{{0, 3}, 1}, {{0, 1}, 1}}};
  FakeEngine engine;
  const auto report = MeasureTasks(&engine, items, std::vector{encoded, encoded}, 16);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_EQ(report->items, 2);
  EXPECT_EQ(report->requests, 4);
  EXPECT_EQ(report->truncated_requests, 0);
  EXPECT_EQ(report->context_tokens, 16);
  EXPECT_EQ(report->plan, "dense");
  EXPECT_EQ(report->summary.tasks[0].accuracies.acc.value, 0.5);
}

}  // namespace
}  // namespace espalier::test
