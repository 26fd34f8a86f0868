#include "server/state_json.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace espalier {
namespace {

const char* StateName(RequestView::State state) {
  switch (state) {
    case RequestView::State::kWaiting:
      return "waiting";
    case RequestView::State::kPrefill:
      return "prefill";
    case RequestView::State::kDecode:
      return "decode";
  }
  return "";
}

const char* BlockState(const LoopSnapshot& snapshot, BlockId block) {
  if (snapshot.plan != nullptr && snapshot.plan->kept(block)) {
    return "kept";
  }
  const bool pending = std::find(snapshot.pending.begin(), snapshot.pending.end(), block) != snapshot.pending.end();
  return pending ? "loading" : "dropped";
}

Json RequestsJson(const LoopSnapshot& snapshot) {
  Json requests = Json::array();
  for (const RequestView& view : snapshot.requests) {
    requests.push_back({{"id", view.id},
                        {"state", StateName(view.state)},
                        {"prompt_tokens", view.prompt_tokens},
                        {"cached_tokens", view.cached_tokens},
                        {"prefilled_tokens", view.prefilled_tokens},
                        {"generated_tokens", view.generated_tokens},
                        {"max_tokens", view.max_tokens}});
  }
  return requests;
}

Json CountersJson(const LoopSnapshot& snapshot) {
  return {{"completed", snapshot.completed},
          {"cancelled", snapshot.cancelled},
          {"failed", snapshot.failed},
          {"refused", snapshot.refused},
          {"preemptions", snapshot.preemptions},
          {"transitions", snapshot.transitions},
          {"violations", snapshot.violations},
          {"prompt_tokens", snapshot.prompt_tokens},
          {"cached_prompt_tokens", snapshot.cached_prompt_tokens},
          {"generated_tokens", snapshot.generated_tokens},
          {"overshoot_byte_seconds", snapshot.overshoot_byte_seconds}};
}

}  // namespace

ModelSummary ModelSummaryOf(const Model& model, const std::string& name) {
  ModelSummary served = {name, model.quantization(), {}};
  for (int b = 0; b < model.n_block(); ++b) {
    served.block_bytes.push_back(model.block({b}).file_bytes);
  }
  return served;
}

Json MemoryJson(const LoopSnapshot& snapshot) {
  const MemoryInUse& managed = snapshot.managed;
  return {{"budget_bytes", LimitJson(snapshot.limit_bytes)},
          {"planned_bytes", LimitJson(snapshot.planned_bytes)},
          {"budget_source", snapshot.limit_source},
          {"pressure", snapshot.pressure},
          {"used_bytes", managed.total() + snapshot.process_bytes},
          {"managed_bytes", managed.total()},
          {"weight_bytes", managed.weight_bytes},
          {"kv_bytes", managed.kv_bytes},
          {"compute_bytes", managed.compute_bytes},
          {"staging_bytes", managed.staging_bytes},
          {"process_bytes", snapshot.process_bytes},
          {"dense_peak_bytes", snapshot.dense_peak_bytes},
          {"minimum_bytes", snapshot.minimum_bytes},
          {"kv",
           {{"used_cells", snapshot.used_cells},
            {"cached_cells", snapshot.cached_cells},
            {"reserved_cells", snapshot.reserved_cells},
            {"capacity_cells", snapshot.capacity_cells}}}};
}

Json PlanJson(const LoopSnapshot& snapshot, const std::vector<uint64_t>& block_bytes) {
  ESPALIER_CHECK(snapshot.plan == nullptr || static_cast<size_t>(snapshot.plan->n_block()) == block_bytes.size());
  Json plan = {{"policy", snapshot.policy}};
  const Json resident =
      ToJson(snapshot.plan != nullptr ? *snapshot.plan : Plan::Nothing(static_cast<int>(block_bytes.size() / 2)));
  plan.update(resident);
  plan["predicted_loss_nats"] = snapshot.loss ? Json(snapshot.loss->nats) : Json();
  plan["predicted_loss_measured"] = snapshot.loss && snapshot.loss->measured;
  Json blocks = Json::array();
  for (size_t b = 0; b < block_bytes.size(); ++b) {
    const BlockId block = {static_cast<int>(b)};
    blocks.push_back({{"name", BlockName(block)}, {"bytes", block_bytes[b]}, {"state", BlockState(snapshot, block)}});
  }
  plan["blocks"] = std::move(blocks);
  return plan;
}

Json StateJson(const LoopSnapshot& snapshot, const ModelSummary& model) {
  return {
      {"model", {{"name", model.name}, {"quantization", model.quantization}, {"layers", model.block_bytes.size() / 2}}},
      {"memory", MemoryJson(snapshot)},
      {"plan", PlanJson(snapshot, model.block_bytes)},
      {"requests", RequestsJson(snapshot)},
      {"running", snapshot.running},
      {"waiting", snapshot.waiting},
      {"tokens_per_second", snapshot.tokens_per_second},
      {"counters", CountersJson(snapshot)},
      {"seconds", snapshot.seconds}};
}

Json SlotsJson(const LoopSnapshot& snapshot, int n_parallel, int64_t context_tokens) {
  Json slots = Json::array();
  for (int i = 0; i < n_parallel; ++i) {
    slots.push_back({{"id", i}, {"n_ctx", context_tokens}, {"speculative", false}, {"is_processing", false}});
  }
  size_t next = 0;
  for (const RequestView& view : snapshot.requests) {
    if (view.state == RequestView::State::kWaiting || next == slots.size()) {
      continue;
    }
    Json& slot = slots[next++];
    slot["is_processing"] = true;
    slot["id_task"] = view.id;
    slot["n_prompt_tokens"] = view.prompt_tokens;
    slot["n_prompt_tokens_processed"] = std::max<int64_t>(0, view.prefilled_tokens - view.cached_tokens);
    slot["n_prompt_tokens_cache"] = view.cached_tokens;
    slot["n_decoded"] = view.generated_tokens;
    // Where llama-server has it: a list, of one.
    slot["next_token"] = Json::array({{{"has_next_token", view.generated_tokens < view.max_tokens},
                                       {"n_remain", std::max<int64_t>(0, view.max_tokens - view.generated_tokens)},
                                       {"n_decoded", view.generated_tokens}}});
  }
  return slots;
}

Json EventJson(const ServingEvent& event) {
  Json json = {{"number", event.number},
               {"unix_ms", event.unix_ms},
               {"seconds", event.seconds},
               {"kind", EventKindName(event.kind)},
               {"text", event.text},
               {"budget_bytes", LimitJson(event.limit_bytes)},
               {"used_bytes", event.used_bytes},
               {"source", event.source}};
  if (event.transition) {
    json["transition"] = ToJson(*event.transition);
  }
  return json;
}

}  // namespace espalier
