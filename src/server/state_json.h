// What the loop tells, as JSON for the page and for programs. Pure functions of a snapshot.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "json/json.h"
#include "model/model.h"
#include "serving/engine_loop.h"
#include "serving/events.h"

namespace espalier {

// What the state says of the model itself.
struct ModelSummary {
  std::string name;
  std::string quantization;
  std::vector<uint64_t> block_bytes;  // of each block's weights in the file
};
ModelSummary ModelSummaryOf(const Model& model, const std::string& name);

// budget_bytes and planned_bytes (null: no limit), used_bytes = managed + process, and the parts of both; the cells of
// the KV cache under "kv".
Json MemoryJson(const LoopSnapshot& snapshot);
// The resident plan, what it is predicted to lose, and each block with its bytes and "kept", "dropped" or "loading".
// Before the loop knows its plan every block is "dropped". REQUIRES: snapshot.plan is nullptr or has as many blocks.
Json PlanJson(const LoopSnapshot& snapshot, const std::vector<uint64_t>& block_bytes);
// Everything: model, memory, plan, requests, counters.
Json StateJson(const LoopSnapshot& snapshot, const ModelSummary& model);

// llama-server's slots: `n_parallel` of them, the first ones busy with the running requests in the snapshot's order.
// Unlike there, a request may move to a slot of a lower number when another one ends.
Json SlotsJson(const LoopSnapshot& snapshot, int n_parallel, int64_t context_tokens);

// "transition" is there only for events of that kind.
Json EventJson(const ServingEvent& event);

}  // namespace espalier
