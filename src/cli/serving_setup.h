// From flags to what an engine loop stands on: the same for every command that runs one.
#pragma once

#include <CLI/CLI.hpp>

#include <memory>
#include <optional>

#include "base/status.h"
#include "cli/options.h"
#include "cli/placement.h"
#include "cli/policy_choice.h"
#include "runtime/engine.h"
#include "serving/engine_loop.h"
#include "text/tokenizer.h"

namespace espalier {

struct ServingFlags {
  ModelOption model;
  BudgetOption budget;
  PlanOptions plan;
  PolicyFlags policy;
  EngineFlags engine;
  int64_t n_ctx = 0;   // KV cells over all requests; 0: n_parallel times the training context, at most 4096 each
  int n_parallel = 4;  // requests in the engine at once
  int n_batch = 2048;  // tokens of one step at most
  bool no_cache_prompt = false;
  LoopOptions loop;  // what has flags of its own above is overwritten
};
// MODEL or -m, --memory-budget, a plan or a policy, -c -np -b, the engine's flags, and what steers the loop.
void AddServingFlags(CLI::App& app, ServingFlags& flags);

// What the flags come to. Everything lives as long as this does, and must outlive the loop.
struct ServingSetup {
  std::shared_ptr<const Model> model;
  std::unique_ptr<Tokenizer> tokenizer;
  Placement placement;  // of all requests together; its survey is the engine's
  std::unique_ptr<Engine> engine;
  uint64_t process_bytes = 0;  // before the first block was loaded
  LoopOptions loop;

  // `limit`, `clock` and `observer` are the caller's to fill in.
  EngineLoop::Parts LoopParts() const;
};

// Opens the model and the profile, decides on a first plan and loads it. `initial_budget` counts where the flag is not
// given; empty, too: no limit, and no policy that could prune. kOutOfBudget, naming the minimum, where the budget
// cannot be met.
Result<ServingSetup> SetUpServing(const ServingFlags& flags, const std::optional<Budget>& initial_budget = {});

}  // namespace espalier
