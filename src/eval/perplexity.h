// Perplexity of a model under the plan its engine holds.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "eval/statistics.h"
#include "eval/subject.h"
#include "eval/windows.h"
#include "runtime/engine.h"

namespace espalier {

struct PerplexityResult {
  EvalSubject subject;
  Estimate perplexity;             // "PPL = x +/- y" of llama-perplexity
  Estimate mean_nll;               // nats per token
  std::vector<double> window_nll;  // mean over each window's scored tokens
  uint64_t managed_bytes = 0;      // the most that was held while scoring
  double elapsed_ms = 0;
};

// Fails with kOutOfBudget if the KV cells do not suffice (EvalWorkload tells how many), kAborted after
// Engine::RequestAbort. Sequences 0.. of the engine are used and removed. REQUIRES: the engine has no sequences.
Result<PerplexityResult> MeasurePerplexity(Engine* engine, const Windows& windows, const EvalProgress& progress = {});

}  // namespace espalier
