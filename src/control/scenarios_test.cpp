#include "control/scenarios.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

// Two layers; 200 bytes of weights and 2 * 2 bytes of KV for each cell: KV equals the weights at 50 cells.
MemoryModel SmallMemory() {
  MemoryModel memory;
  memory.block_bytes = {20, 60, 20, 60};
  memory.block_staging_bytes = {0, 0, 0, 0};
  memory.global_bytes = 40;
  memory.kv = {.key_bytes_per_cell = 1, .value_bytes_per_cell = 1, .n_planes = 2, .page_bytes = 1, .capacity = 100000};
  return memory;
}

TEST(Scenarios, ThePaperHasTenWorkloadsAtFourBudgets) {
  const auto scenarios = PaperScenarios();
  ASSERT_EQ(scenarios.size(), 10u);
  EXPECT_EQ(scenarios.front().workload.ToText(), "1x4096");
  EXPECT_EQ(scenarios[6].workload.ToText(), "8x4096");
  for (const Scenario& scenario : scenarios) {
    ASSERT_EQ(scenario.budgets.size(), 4u);
    EXPECT_EQ(scenario.budgets.front().ToText(), "90%");
    EXPECT_EQ(scenario.budgets.back().ToText(), "60%");
  }
}

TEST(Scenarios, ScaledOnesCoverTheSameShareOfKvForAModelOfAnySize) {
  for (const uint64_t size : {1, 1000, 1000000}) {
    MemoryModel memory = SmallMemory();
    for (uint64_t& bytes : memory.block_bytes) {
      bytes *= 100 * size;
    }
    memory.global_bytes *= 100 * size;
    const auto scaled = ScaledScenarios(memory);
    const auto paper = PaperScenarios();
    ASSERT_EQ(scaled.size(), paper.size());
    for (size_t i = 0; i < scaled.size(); ++i) {
      const Workload& workload = scaled[i].workload;
      EXPECT_EQ(workload.n_sequences, paper[i].workload.n_sequences);
      // 0.05 * 80^(1/3) and 0.05 * 80^(2/3) lie between the ends.
      const int64_t total = paper[i].workload.kv_cells;
      const double expected = total == 4096 ? 0.05 : total == 8192 ? 0.215443 : total == 16384 ? 0.928318 : 4.0;
      EXPECT_NEAR(KvToWeights(memory, workload), expected, 0.02 * expected) << workload.ToText();
    }
  }
}

TEST(Scenarios, AModelWithNextToNoWeightsStillGetsOneTokenForEachSequence) {
  for (const Scenario& scenario : ScaledScenarios(SmallMemory())) {
    EXPECT_GE(scenario.workload.longest_sequence, 1);
  }
}

TEST(Scenarios, LinesHoldAWorkloadAndItsBudgets) {
  const auto scenarios = ParseScenarios("# workload budgets\n8x512 90% 80%\n\n  1x4096\t700MiB # tight\r\n", "list");
  ASSERT_TRUE(scenarios.ok()) << scenarios.status().message();
  const std::vector<Scenario> expected = {
      {Workload::Uniform(8, 512), {Budget::Percent(90), Budget::Percent(80)}},
      {Workload::Uniform(1, 4096), {Budget::Bytes(700 << 20)}},
  };
  EXPECT_EQ(*scenarios, expected);
}

TEST(Scenarios, ErrorsNameLineAndField) {
  const auto message = [](std::string_view text) {
    const auto scenarios = ParseScenarios(text, "list.txt");
    EXPECT_FALSE(scenarios.ok()) << text;
    return scenarios.ok() ? "" : scenarios.status().message();
  };
  EXPECT_TRUE(message("8x512 90%\n8x 90%").starts_with("list.txt line 2, field 1: workload '8x'"));
  EXPECT_TRUE(message("# a\n8x512 90% 120%").starts_with("list.txt line 2, field 3: memory budget '120%'"));
  EXPECT_TRUE(message("8x512 # 90%").starts_with("list.txt line 1, field 2: workload 8x512 without a budget"));
  EXPECT_TRUE(message("").starts_with("list.txt: no scenario"));
  EXPECT_TRUE(message("# only words\n").starts_with("list.txt: no scenario"));
  std::string many;
  for (int i = 0; i < 1001; ++i) {
    many += "1x1 50%\n";
  }
  EXPECT_TRUE(message(many).starts_with("list.txt line 1001: expected at most 1000"));
}

TEST(Scenarios, OnesWithNearlyTheSameCellsCountOnce) {
  EXPECT_EQ(DistinctInCells(PaperScenarios()), (std::vector<size_t>{0, 2, 3, 6}));
  const std::vector<Scenario> scenarios = {
      {Workload::Uniform(16, 10), {}}, {Workload::Uniform(1, 100), {}}, {Workload::Uniform(2, 52), {}}};
  EXPECT_EQ(DistinctInCells(scenarios), (std::vector<size_t>{1, 0}));
  EXPECT_TRUE(DistinctInCells({}).empty());
}

}  // namespace
}  // namespace espalier
