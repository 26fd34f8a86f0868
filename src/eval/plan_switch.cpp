#include "eval/plan_switch.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "eval/scoring.h"
#include "eval/window_batches.h"

namespace espalier {
namespace {

using Clock = std::chrono::steady_clock;

double MillisecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

constexpr SequenceId kSequence = 0;

// One way of scoring, and its differences to the way it is measured against.
struct WaySums {
  Moments nll;
  Moments excess;

  void Add(const std::vector<double>& values, const std::vector<double>& against) {
    for (size_t i = 0; i < values.size(); ++i) {
      nll.Add(values[i]);
      excess.Add(values[i] - against[i]);
    }
  }
  SwitchScore Score() const { return {nll.estimate(), PerplexityOf(nll.estimate()), excess.estimate()}; }
};

struct CostSums {
  Moments ms, released, loaded;
  double max_ms = 0;
  uint64_t peak = 0;

  void Add(const Transition& transition) {
    const double total = transition.release_ms + transition.load_ms;
    ms.Add(total);
    max_ms = std::max(max_ms, total);
    released.Add(static_cast<double>(transition.released_bytes));
    loaded.Add(static_cast<double>(transition.loaded_bytes));
    peak = std::max(peak, transition.peak_bytes);
  }
  SwitchCost Cost() const { return {ms.count(), ms.mean(), max_ms, released.mean(), loaded.mean(), peak}; }
};

class SwitchRun {
 public:
  SwitchRun(Engine* engine, const Plan& plan, const Windows& windows, int64_t switch_at)
      : engine_(engine), plan_(plan), windows_(windows), switch_at_(switch_at) {}

  // Each prefix is computed once: after it was scored one way, the sequence is cut back to it, and scored another way.
  Status ScoreWindow(int64_t window) {
    const SequenceGuard guard(engine_, kSequence, 1);
    ESPALIER_RETURN_IF_ERROR(Prefill(window));
    ESPALIER_ASSIGN_OR_RETURN(const auto dense, ScoreRest(window));
    ESPALIER_RETURN_IF_ERROR(Switch(plan_, &to_plan_));
    ESPALIER_ASSIGN_OR_RETURN(const auto dense_to_plan, ScoreRest(window));
    engine_->RemoveSequence(kSequence);
    ESPALIER_RETURN_IF_ERROR(Prefill(window));
    ESPALIER_ASSIGN_OR_RETURN(const auto fresh_plan, ScoreRest(window));
    ESPALIER_RETURN_IF_ERROR(Switch(Plan::Dense(plan_.n_layer()), &to_dense_));
    skipped_.Add(static_cast<double>(engine_->SkippedBlocks(kSequence).size()));
    ESPALIER_ASSIGN_OR_RETURN(const auto plan_to_dense, ScoreRest(window));
    const auto start = Clock::now();
    ESPALIER_RETURN_IF_ERROR(engine_->Reprefill(kSequence));
    reprefill_ms_.Add(MillisecondsSince(start));
    ESPALIER_ASSIGN_OR_RETURN(const auto reprefilled, ScoreRest(window));
    dense_.Add(dense, dense);
    fresh_plan_.Add(fresh_plan, fresh_plan);
    dense_to_plan_.Add(dense_to_plan, fresh_plan);
    plan_to_dense_.Add(plan_to_dense, dense);
    reprefilled_.Add(reprefilled, dense);
    return Status::Ok();
  }

  double perplexity_so_far() const { return PerplexityOf(dense_to_plan_.nll.estimate()).value; }

  PlanSwitchResult Summarise() const {
    PlanSwitchResult result;
    result.subject = DescribeSubject(*engine_, plan_, windows_);
    result.subject.tokens_scored = dense_.nll.count();
    result.switch_at = switch_at_;
    result.dense = dense_.Score();
    result.fresh_plan = fresh_plan_.Score();
    result.dense_to_plan = dense_to_plan_.Score();
    result.plan_to_dense = plan_to_dense_.Score();
    result.plan_to_dense_reprefilled = reprefilled_.Score();
    result.skipped_blocks = skipped_.mean();
    result.reprefill_ms = reprefill_ms_.mean();
    result.to_plan = to_plan_.Cost();
    result.to_dense = to_dense_.Cost();
    return result;
  }

 private:
  // First position whose row is scored: its successor counts under the protocol, and the row is of after the switch.
  int64_t first_row() const { return std::max(switch_at_, windows_.first_target - 1); }

  Status Prefill(int64_t window) {
    std::vector<BatchToken> batch;
    for (const int32_t token : windows_.at(window).first(static_cast<size_t>(switch_at_))) {
      batch.push_back({token, kSequence, false});
    }
    return engine_->Decode(batch, [](int64_t, std::span<const float>) {});
  }

  Status Switch(const Plan& plan, CostSums* cost) {
    ESPALIER_ASSIGN_OR_RETURN(const Transition transition, engine_->Apply(plan));
    cost->Add(transition);
    return Status::Ok();
  }

  // The nll of each token that counts after the prefix; the sequence is its prefix again afterwards.
  Result<std::vector<double>> ScoreRest(int64_t window) {
    const auto tokens = windows_.at(window);
    std::vector<BatchToken> batch;
    for (int64_t position = switch_at_; position + 1 < windows_.window_tokens; ++position) {
      batch.push_back({tokens[static_cast<size_t>(position)], kSequence, position >= first_row()});
    }
    std::vector<double> nll;
    const auto sink = [&](int64_t row, std::span<const float> logits) {
      nll.push_back(NegativeLogLikelihood(logits, tokens[static_cast<size_t>(first_row() + row + 1)]));
    };
    ESPALIER_RETURN_IF_ERROR(engine_->Decode(batch, sink));
    const auto bad = std::find_if_not(nll.begin(), nll.end(), [](double x) { return std::isfinite(x); });
    if (bad != nll.end()) {
      return NotFiniteError(*engine_, window, first_row() + (bad - nll.begin()));
    }
    engine_->TruncateSequence(kSequence, switch_at_);
    return nll;
  }

  Engine* engine_;
  const Plan& plan_;
  const Windows& windows_;
  int64_t switch_at_;
  WaySums dense_, fresh_plan_, dense_to_plan_, plan_to_dense_, reprefilled_;
  CostSums to_plan_, to_dense_;
  Moments skipped_, reprefill_ms_;
};

Status CheckSwitch(const Engine& engine, const Plan& plan, const Windows& windows, int64_t switch_at) {
  if (!engine.plan().dense() || plan.n_block() != engine.plan().n_block()) {
    return InvalidArgument(fmt::format(
        "switch to a plan over {} blocks: the engine must hold the dense plan of as many blocks, it holds '{}' over {}",
        plan.n_block(), engine.plan().ToText(), engine.plan().n_block()));
  }
  if (switch_at < 1 || switch_at > windows.window_tokens - 2) {
    return InvalidArgument(fmt::format("switch at token {}: expected 1 to {} in windows of {} tokens", switch_at,
                                       windows.window_tokens - 2, windows.window_tokens));
  }
  return CheckCapacity(engine, Workload::Uniform(1, windows.window_tokens));
}

}  // namespace

Result<PlanSwitchResult> MeasurePlanSwitch(Engine* engine, const Plan& plan, const Windows& windows, int64_t switch_at,
                                           const EvalProgress& progress) {
  ESPALIER_RETURN_IF_ERROR(CheckSwitch(*engine, plan, windows, switch_at));
  const auto start = Clock::now();
  SwitchRun run(engine, plan, windows, switch_at);
  for (int64_t window = 0; window < windows.count(); ++window) {
    if (const Status status = run.ScoreWindow(window); !status.ok()) {
      static_cast<void>(engine->Apply(Plan::Dense(plan.n_layer())));  // the first error is the one to tell
      return status;
    }
    if (progress) {
      progress(window + 1, windows.count(), run.perplexity_so_far());
    }
  }
  PlanSwitchResult result = run.Summarise();
  result.elapsed_ms = MillisecondsSince(start);
  return result;
}

}  // namespace espalier
