// What an engine is made from: options completed and checked, the options of its parts, and the memory model they give.
#pragma once

#include "base/status.h"
#include "model/footprint.h"
#include "model/model.h"
#include "model/plan.h"
#include "runtime/engine.h"
#include "runtime/executor.h"
#include "runtime/kv_cache.h"
#include "runtime/sub_batch.h"
#include "runtime/weights.h"

namespace espalier {

// Defaults filled in and bounds checked. Fails with kInvalidArgument, or kUnsupported for KV types that the model's
// heads do not fit.
Result<EngineOptions> CompleteOptions(const Model& model, EngineOptions options);

KvOptions KvOptionsOf(const EngineOptions& options);
WeightOptions WeightOptionsOf(const EngineOptions& options);
ComputeLimits LimitsOf(const EngineOptions& options, const KvCache& kv);
HeadPacking PackingOf(const Model& model, const EngineOptions& options, const Device& device);

// kInvalidArgument if the plan is for another number of layers, kUnsupported if it has structured width.
Status CheckPlan(const Model& model, const Plan& plan);

MemoryModel AssembleMemoryModel(const WeightStore& weights, const KvCache& kv, const ComputeBytes& compute,
                                int n_block);

}  // namespace espalier
