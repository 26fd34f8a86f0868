// Log-likelihoods of many continuations through one engine, many items to a batch.
//
// What the choices of an item have in common at their beginning is computed once: the shared tokens, then each choice's
// rest after the sequence was cut back to them. Items enter as others leave, and the tokens of a batch are whatever
// comes next in each of them.
//
// Items in flight share the KV cells of one sub-batch. More would fill the batches better, but attention scans every
// used cell for every token: on the reference model with 512 tokens to a sub-batch, 512 cells give batches of 240
// tokens, 1536 cells batches of 480 that take 30 % longer in all.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/status.h"
#include "eval/task_requests.h"
#include "model/workload.h"
#include "runtime/engine.h"

namespace espalier {

// What is resident while the items are scored: size the engine's context (EngineOptions::n_ctx) by its kv_cells. Cells
// for the longest request, or for n_ubatch tokens if there are more; n_sequences is the mean.
Workload TaskWorkload(std::span<const EncodedItem> items, int n_ubatch);

// After each batch.
using TaskProgress = std::function<void(int64_t items_done, int64_t items)>;

struct TaskLikelihoods {
  std::vector<std::vector<double>> values;  // [items][requests], nats: log-likelihood of the continuation's tokens
  int64_t tokens_computed = 0;              // fewer than the requests' sum, for what they share
  int64_t batches = 0;
  uint64_t managed_bytes = 0;  // the most that was held
};

// Under the plan that the engine holds. Fails with kOutOfBudget if the KV cells do not suffice for TaskWorkload with
// the engine's n_ubatch, kCorrupt if logits are not finite, kAborted after Engine::RequestAbort. Sequences 0.. of the
// engine are used and removed. REQUIRES: the engine has no sequences; tokens are in its vocabulary.
Result<TaskLikelihoods> ScoreItems(Engine* engine, std::span<const EncodedItem> items,
                                   const TaskProgress& progress = {});

}  // namespace espalier
