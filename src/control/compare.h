// Two things timed against each other: in one process, in turns, so that whatever else the machine does falls on both.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "control/measure.h"
#include "runtime/engine.h"

namespace espalier {

// What is timed. Empty vectors leave a kind of work out.
struct BenchWork {
  std::vector<int32_t> prompt;   // one prefill
  std::vector<int32_t> prefix;   // what decoding starts from; not timed
  std::vector<int32_t> decoded;  // decoded one by one
};

struct CompareOptions {
  int pairs = 5;
  std::function<void(int done, int total)> progress;
};

// Speed of this engine over libllama's, pair by pair: above 1 this engine is faster.
struct Comparison {
  std::optional<Quartiles> prefill_ratio;
  std::optional<Quartiles> decode_ratio;
};

// Speed under a plan over speed dense, beside the bytes read per decoded token, dense over plan.
struct PlanComparison {
  std::optional<Quartiles> prefill_speed_up;
  std::optional<Quartiles> decode_speed_up;
  double byte_ratio = 1;
};

// Fails with kCorrupt unless engine and libllama give the same bits for `tokens` as one prefill (all rows) and one
// token decoded after it, at equal batch shapes, dense, with the same buffers (a tied head is copied for this, as
// libllama does). Says where they differ first.
Status CheckAgainstLibllama(const std::shared_ptr<const Model>& model, const EngineOptions& options,
                            std::span<const int32_t> tokens);

// Loads the model into libllama too: twice the memory. The engine keeps its plan; libllama is always dense.
Result<Comparison> CompareWithLibllama(Engine& engine, const BenchWork& work, const CompareOptions& options);

// Leaves the engine with one of the two plans.
Result<PlanComparison> ComparePlanWithDense(Engine& engine, const Plan& plan, const BenchWork& work,
                                            const CompareOptions& options);

}  // namespace espalier
