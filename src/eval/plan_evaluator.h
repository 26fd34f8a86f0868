// The evaluator: the loss of many plans on one text, each window of each plan measured once and for ever.
//
//  * The dense model's predictions are computed once and kept as 16-bit probabilities (eval/dense_predictions.h says
//    what that costs in accuracy).
//  * Activations of plans already run are kept, window by window (eval/prefix_cache.h): another plan starts where it
//    first differs from all of them, in the same arithmetic: figures do not depend on what was measured before.
//  * Every measured window goes to the profile's archive and journal before it is returned: nothing is measured twice,
//    not even after kill -9.
// Loss is KL(dense || plan) in nats per token; a window's sum is never negative, so the sum over the first windows is a
// lower bound of the whole: searches abandon a plan by it without losing exactness (importance/best_first.h); a window
// that was not measured has a bound too, without the output head.
//
// Thread rule: one thread at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "base/status.h"
#include "eval/windows.h"
#include "model/block_means.h"
#include "model/model.h"
#include "model/plan.h"
#include "profile/archive.h"
#include "profile/profile_file.h"
#include "runtime/engine.h"

namespace espalier {

struct PlanEvaluatorOptions {
  EngineOptions engine;  // device, threads, KV types, repack; n_ctx and n_ubatch are chosen here. means: ignored
  // What dropped blocks add. kMean needs `means`.
  Ablation ablation = Ablation::kZero;
  std::shared_ptr<const BlockMeans> means;
  // The model whose dense predictions loss is measured against; nullptr: the model itself. Another one (the f16 source
  // of a quantised model) must have the same vocabulary. Such measurements are not for the profile: pass no store.
  std::shared_ptr<const Model> reference;
  // What `reference` predicts with, where that is not `engine`: the model itself with other KV types can then be the
  // reference. n_ctx, n_ubatch and means as with `engine`; empty: `engine`. REQUIRES: empty without `reference`.
  std::optional<EngineOptions> reference_engine;
  int max_resident_blocks = 0;                // runtime/block_runner.h
  uint64_t prefix_bytes = uint64_t{2} << 30;  // at most for the activations kept
};

// Work done and work that a naive loop (every plan computed whole, from the embedding to the head) would have done for
// the same measurements.
struct EvaluatorWork {
  int64_t windows_measured = 0;
  int64_t windows_recalled = 0;  // from the archive
  int64_t windows_bounded = 0;   // run up to the head for a bound
  double flops = 0;              // spent on plans, output head included; the dense predictions are not in it
  double whole_flops = 0;        // of the windows measured, each computed whole
  double dense_flops = 0;        // once, for the dense predictions
  double seconds = 0;
};

class PlanEvaluator {
 public:
  // Computes the dense predictions of all windows (`progress` after each). `store` may be nullptr: results then live
  // as long as the evaluator. `store` must outlive it. A reference is let go before the model is loaded: one of them is
  // in memory at a time.
  static Result<std::unique_ptr<PlanEvaluator>> Create(std::shared_ptr<const Model> model, const Windows& windows,
                                                       const PlanEvaluatorOptions& options, ProfileStore* store,
                                                       const std::function<void(int64_t, int64_t)>& progress = {});
  virtual ~PlanEvaluator() = default;

  virtual const Model& model() const = 0;
  virtual const MeasurementSet& set() const = 0;
  virtual const Archive& archive() const = 0;
  virtual int64_t n_windows() const = 0;
  // Scored tokens over all windows: what a sum of windows is divided by.
  virtual int64_t tokens_scored() const = 0;
  // Mean negative log-likelihood of the dense model (of `reference` where there is one), nats per token.
  virtual double dense_nll() const = 0;

  // What the archive has, or a measurement. REQUIRES: 0 <= window < n_windows(), and at most one beyond the windows of
  // `plan` that are known: windows are measured in order.
  virtual Result<WindowLoss> MeasureWindow(const Plan& plan, int64_t window) = 0;
  // A lower bound of the window's KL (eval/kl_bound.h), at the price of the plan's blocks and a few percent of the
  // head; what the archive has, where it has the window; 0 where the head's matrix cannot be read. Never above what
  // MeasureWindow returns, which then costs the head alone. Nothing is remembered.
  virtual Result<double> BoundWindow(const Plan& plan, int64_t window) = 0;
  // All windows; the loss.
  virtual Result<double> Measure(const Plan& plan) = 0;

  // Floating-point operations of one window under `plan`, from the embedding to the head.
  virtual double WindowFlops(const Plan& plan) const = 0;
  virtual const EvaluatorWork& work() const = 0;

  // From now on a measurement fails with kAborted once `*stop` is true; nullptr: never. It must outlive the evaluator.
  virtual void StopWhen(const std::atomic<bool>* stop) = 0;
};

// The set that measurements on `windows` with these options belong to.
MeasurementSet DescribeSet(const Windows& windows, const PlanEvaluatorOptions& options);

}  // namespace espalier
