// A comparison without models: losses that add up, policies that say what they are told, and a small model's bytes.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "control/policy_choices.h"
#include "importance/fake_evaluator_for_test.h"
#include "policy/policy.h"

namespace espalier {

using test::FunctionEvaluator;

// For FunctionEvaluator: a plan loses the sum of what its dropped blocks lose, losses[window][block] in nats per token,
// and `always`.
inline FunctionEvaluator::Kl Additive(std::vector<std::vector<double>> losses, double always = 0) {
  return [losses = std::move(losses), always](const Plan& plan, int64_t window) {
    double loss = always;
    for (const BlockId block : plan.dropped()) {
      loss += losses[static_cast<size_t>(window)][static_cast<size_t>(block.index)];
    }
    return loss * FunctionEvaluator::kTokensPerWindow;
  };
}

// The first of its plans that fits.
class ScriptedPolicy final : public Policy {
 public:
  explicit ScriptedPolicy(std::vector<Plan> plans) : plans_(std::move(plans)) {}
  const char* name() const override { return "scripted"; }
  Result<Decision> Decide(const Observation& observation) const override {
    for (const Plan& plan : plans_) {
      const Footprint footprint = FootprintOf(observation, plan);
      if (Fits(observation, footprint)) {
        return Decision{plan, footprint, {}};
      }
    }
    return OutOfBudget("nothing scripted fits");
  }
  std::vector<BlockId> DropOrder(int) const override { return {}; }

 private:
  std::vector<Plan> plans_;
};

inline constexpr int kFakeLayers = 2;

inline Plan Dropping(const std::string& blocks) { return *Plan::ParseDrop(blocks, kFakeLayers); }

// Attention blocks take 1000 bytes and 2 for each KV cell, FFN blocks 3000, the rest 5000; all of weights over
// `divisor`.
inline MemoryModel FakeMemory(uint64_t divisor = 1) {
  MemoryModel memory;
  memory.block_bytes = {1000 / divisor, 3000 / divisor, 1000 / divisor, 3000 / divisor};
  memory.block_staging_bytes = {0, 0, 0, 0};
  memory.global_bytes = 5000 / divisor;
  memory.kv = {.key_bytes_per_cell = 1, .value_bytes_per_cell = 1, .n_planes = 2, .page_bytes = 1, .capacity = 100000};
  return memory;
}

// With one sequence of 100 tokens: 13400 bytes when dense, of which 200 are KV of one attention block.
inline ScenarioMemory FakeScenario(std::vector<Budget> budgets, int64_t tokens = 100) {
  ScenarioMemory scenario;
  scenario.scenario = {Workload::Uniform(1, tokens), std::move(budgets)};
  scenario.survey.workload = scenario.scenario.workload;
  scenario.survey.Adopt(FakeMemory());
  return scenario;
}

}  // namespace espalier
