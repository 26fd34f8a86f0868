#include "control/controller.h"

#include <algorithm>
#include <chrono>

#include "base/check.h"

namespace espalier {
namespace {

// What both plans keep.
Plan Intersection(const Plan& a, const Plan& b) {
  Plan both = a;
  for (const BlockId block : b.dropped()) {
    both.Drop(block);
  }
  return both;
}

}  // namespace

const char* ReasonName(TransitionEvent::Reason reason) {
  switch (reason) {
    case TransitionEvent::Reason::kBudget:
      return "budget";
    case TransitionEvent::Reason::kLoad:
      return "load";
    case TransitionEvent::Reason::kReprefill:
      return "reprefill";
  }
  return "";
}

Controller::Controller(Engine& engine, const Policy& policy, const ControllerOptions& options)
    : engine_(engine), policy_(policy), options_(options) {
  ESPALIER_CHECK(options.loads_per_step > 0);
}

template <class Change>
Result<TransitionEvent> Controller::Observe(TransitionEvent::Reason reason, Change change) {
  using Clock = std::chrono::steady_clock;
  TransitionEvent event;
  event.reason = reason;
  event.limit_bytes = options_.limit_bytes;
  event.plan_before = engine_.plan();
  event.predicted_bytes_before = PredictNow(engine_).managed_bytes();
  ESPALIER_ASSIGN_OR_RETURN(event.before, TakeMemoryAccount(engine_, options_.process_bytes));
  const auto start = Clock::now();
  ESPALIER_ASSIGN_OR_RETURN(event.moved, change());
  event.ms = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  ESPALIER_ASSIGN_OR_RETURN(event.after, TakeMemoryAccount(engine_, options_.process_bytes));
  event.plan_after = engine_.plan();
  event.predicted_bytes_after = PredictNow(engine_).managed_bytes();
  event.pending = pending_;
  event.loss = loss_;
  return event;
}

Result<TransitionEvent> Controller::SetLimit(uint64_t limit_bytes) {
  const Observation observation = {.memory = &engine_.memory_model(),
                                   .workload = options_.workload,
                                   .limit_bytes = limit_bytes,
                                   .process_bytes = options_.process_bytes};
  ESPALIER_ASSIGN_OR_RETURN(const Decision decision, policy_.Decide(observation));
  options_.limit_bytes = limit_bytes;
  loss_ = decision.loss;
  const Plan resident = Intersection(engine_.plan(), decision.plan);
  pending_.clear();
  const std::vector<BlockId> order = policy_.DropOrder(observation.n_layer());
  for (auto block = order.rbegin(); block != order.rend(); ++block) {
    if (decision.plan.kept(*block) && !resident.kept(*block)) {
      pending_.push_back(*block);
    }
  }
  return Observe(TransitionEvent::Reason::kBudget, [&]() -> Result<Transition> {
    // Apply throws the cached graphs away even where nothing changes.
    return resident == engine_.plan() ? Result<Transition>(Transition()) : engine_.Apply(resident);
  });
}

Result<TransitionEvent> Controller::Load() {
  ESPALIER_CHECK(loading());
  const auto n = std::min(static_cast<size_t>(options_.loads_per_step), pending_.size());
  Plan larger = engine_.plan();
  for (size_t i = 0; i < n; ++i) {
    larger.Restore(pending_[i]);
  }
  pending_.erase(pending_.begin(), pending_.begin() + static_cast<ptrdiff_t>(n));
  return Observe(TransitionEvent::Reason::kLoad, [&] { return engine_.Apply(larger); });
}

Result<TransitionEvent> Controller::Reprefill(SequenceId sequence) {
  return Observe(TransitionEvent::Reason::kReprefill, [&]() -> Result<Transition> {
    ESPALIER_RETURN_IF_ERROR(engine_.Reprefill(sequence));
    return Transition();
  });
}

}  // namespace espalier
