// How far a plan moves the model's predictions: KL(dense || plan) over the same tokens, and what llama-perplexity
// --kl-divergence prints beside it. Dense logits are exact here; llama.cpp stores them in 16 bits, which costs it about
// three digits.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "eval/statistics.h"
#include "eval/subject.h"
#include "eval/windows.h"
#include "runtime/engine.h"

namespace espalier {

struct KlResult {
  EvalSubject subject;
  // Loss of the plan: mean KL(dense || plan), nats per token.
  Estimate kl;
  // The same mean; its error from the spread of the windows' means, so that dependence inside a window is in it.
  double kl_error_over_windows = 0;
  double kl_median = 0;
  double kl_p90 = 0;
  double kl_p95 = 0;
  double kl_p99 = 0;
  double kl_p999 = 0;
  double kl_max = 0;
  Estimate paper;           // mean KL(plan || dense): UniCuCo's direction; for its tables only
  Estimate same_top_token;  // share of tokens whose likeliest successor stays the same
  Estimate delta_p;         // mean of p_plan - p_dense of the correct token
  Estimate delta_p_rms;
  Estimate perplexity_dense;
  Estimate perplexity_plan;
  Estimate log_perplexity_ratio;  // ln(PPL(plan) / PPL(dense)); error with the covariance of the two
  std::vector<double> window_kl;  // mean over each window's scored tokens: for paired comparisons of plans
  double elapsed_ms = 0;
};

// Scores every window twice, dense and restricted to `plan` (Engine::SetSequencePlan), sub-batch by sub-batch, so that
// dense logits of one sub-batch only are held: up to n_ubatch * n_vocab floats beside the engine's managed bytes.
// Fails with kInvalidArgument if the engine's resident plan is not dense or `plan` is of another model, kOutOfBudget if
// the KV cells do not suffice (EvalWorkload with 2 sequences per window). REQUIRES: the engine has no sequences.
Result<KlResult> MeasureKl(Engine* engine, const Plan& plan, const Windows& windows, const EvalProgress& progress = {});

}  // namespace espalier
