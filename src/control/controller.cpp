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

// Our own books alone where the kernel does not say: a process that has no file descriptor left to ask with still has
// to give memory back.
MemoryAccount AccountOrBooks(const Engine& engine, uint64_t process_bytes) {
  const Result<MemoryAccount> account = TakeMemoryAccount(engine, process_bytes);
  return account.ok() ? *account : MemoryAccount{.managed = engine.memory_in_use(), .process_bytes = process_bytes};
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
    case TransitionEvent::Reason::kWorkload:
      return "workload";
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
  event.predicted_bytes_before = PredictNow(engine_, sequences_).managed_bytes();
  event.before = AccountOrBooks(engine_, options_.process_bytes);
  const auto start = Clock::now();
  ESPALIER_ASSIGN_OR_RETURN(event.moved, change());
  event.ms = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  event.after = AccountOrBooks(engine_, options_.process_bytes);
  event.plan_after = engine_.plan();
  event.predicted_bytes_after = PredictNow(engine_, sequences_).managed_bytes();
  event.pending = pending_;
  event.loss = loss_;
  return event;
}

Result<Decision> Controller::Decide(uint64_t limit_bytes, const Workload& workload) const {
  return policy_.Decide({.memory = &engine_.memory_model(),
                         .workload = workload,
                         .limit_bytes = limit_bytes,
                         .process_bytes = options_.process_bytes});
}

std::vector<BlockId> Controller::Missing(const Plan& resident, const Plan& wanted) const {
  std::vector<BlockId> missing;
  const std::vector<BlockId> order = policy_.DropOrder(wanted.n_layer());
  for (auto block = order.rbegin(); block != order.rend(); ++block) {
    if (wanted.kept(*block) && !resident.kept(*block)) {
      missing.push_back(*block);
    }
  }
  return missing;
}

Plan Controller::TakeOn(const Decision& decision, uint64_t limit_bytes, const Workload& workload) {
  options_.limit_bytes = limit_bytes;
  options_.workload = workload;
  loss_ = decision.loss;
  Plan resident = Intersection(engine_.plan(), decision.plan);
  pending_ = Missing(resident, decision.plan);
  return resident;
}

Result<TransitionEvent> Controller::SetLimit(uint64_t limit_bytes) {
  ESPALIER_ASSIGN_OR_RETURN(const Decision decision, Decide(limit_bytes, options_.workload));
  const Plan resident = TakeOn(decision, limit_bytes, options_.workload);
  return Observe(TransitionEvent::Reason::kBudget, [&]() -> Result<Transition> {
    // Apply throws the cached graphs away even where nothing changes.
    return resident == engine_.plan() ? Result<Transition>(Transition()) : engine_.Apply(resident);
  });
}

Result<std::optional<TransitionEvent>> Controller::Retarget(uint64_t limit_bytes, const Workload& workload) {
  ESPALIER_ASSIGN_OR_RETURN(const Decision decision, Decide(limit_bytes, workload));
  const auto reason =
      limit_bytes == options_.limit_bytes ? TransitionEvent::Reason::kWorkload : TransitionEvent::Reason::kBudget;
  const Plan resident = TakeOn(decision, limit_bytes, workload);
  if (resident == engine_.plan()) {
    return std::optional<TransitionEvent>();  // Load tells of what comes back
  }
  ESPALIER_ASSIGN_OR_RETURN(TransitionEvent event, Observe(reason, [&] { return engine_.Apply(resident); }));
  return std::optional<TransitionEvent>(std::move(event));
}

Result<std::optional<TransitionEvent>> Controller::DropEverything(uint64_t limit_bytes) {
  options_.limit_bytes = limit_bytes;
  pending_.clear();
  loss_.reset();
  const Plan empty = Plan::Nothing(engine_.plan().n_layer());
  if (empty == engine_.plan()) {
    return std::optional<TransitionEvent>();
  }
  ESPALIER_ASSIGN_OR_RETURN(TransitionEvent event,
                            Observe(TransitionEvent::Reason::kBudget, [&] { return engine_.Apply(empty); }));
  return std::optional<TransitionEvent>(std::move(event));
}

Result<TransitionEvent> Controller::Load() {
  ESPALIER_CHECK(loading());
  const auto n = std::min(static_cast<size_t>(options_.loads_per_step), pending_.size());
  Plan larger = engine_.plan();
  for (size_t i = 0; i < n; ++i) {
    larger.Restore(pending_[i]);
  }
  return Observe(TransitionEvent::Reason::kLoad, [&] {
    Result<Transition> moved = engine_.Apply(larger);
    // What could not be loaded is still to come.
    std::erase_if(pending_, [&](BlockId block) { return engine_.plan().kept(block); });
    return moved;
  });
}

Result<TransitionEvent> Controller::Reprefill(SequenceId sequence) {
  return Observe(TransitionEvent::Reason::kReprefill, [&]() -> Result<Transition> {
    ESPALIER_RETURN_IF_ERROR(engine_.Reprefill(sequence));
    return Transition();
  });
}

}  // namespace espalier
