// What is known about memory before the first block is loaded: the ground that budgets and policies stand on.
#pragma once

#include <memory>

#include "base/status.h"
#include "memory/budget.h"
#include "model/footprint.h"
#include "model/model.h"
#include "model/workload.h"
#include "policy/policy.h"
#include "runtime/engine.h"

namespace espalier {

struct MemorySurvey {
  MemoryModel memory;
  Workload workload;
  BudgetBase base;

  // For a policy; refers to this survey, which must outlive it.
  Observation Observe(const Budget& budget) const;

  // Takes over the figures of the engine that came of it. The backend's scratch is measured by the heap's growth, which
  // can differ by a few kB from one time to the next; limits in percent have to stand on the figures in force.
  void Adopt(const MemoryModel& in_force);
};

// Measures the compute buffers of `model` under `options` (size-only: no weights are read) and the process as it is
// now. Call it after everything that is not for blocks (tokenizer, sampler) is in place and before Engine::Create.
Result<MemorySurvey> SurveyMemory(std::shared_ptr<const Model> model, const EngineOptions& options,
                                  const Workload& workload);

}  // namespace espalier
