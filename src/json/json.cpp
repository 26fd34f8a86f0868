#include "json/json.h"

#include <cstdint>

namespace espalier {

Json ToJson(const Plan& plan) {
  Json keep = Json::object();
  for (int b = 0; b < plan.n_block(); ++b) {
    if (plan.keep({b}) != 1) {
      keep[BlockName({b})] = plan.keep({b});
    }
  }
  return {{"text", plan.ToText()}, {"keep", keep}};
}

Json ToJson(const Footprint& footprint) {
  return {{"weight_bytes", footprint.weight_bytes},     {"kv_bytes", footprint.kv_bytes},
          {"compute_bytes", footprint.compute_bytes},   {"staging_bytes", footprint.staging_bytes},
          {"managed_bytes", footprint.managed_bytes()}, {"peak_bytes", footprint.peak_bytes()}};
}

Json ToJson(const MemoryAccount& account) {
  return {{"managed_bytes", account.managed.total()},
          {"weight_bytes", account.managed.weight_bytes},
          {"kv_bytes", account.managed.kv_bytes},
          {"compute_bytes", account.managed.compute_bytes},
          {"staging_bytes", account.managed.staging_bytes},
          {"process_bytes", account.process_bytes},
          {"anonymous_bytes", account.anonymous_bytes},
          {"measured_managed_bytes", account.measured_managed_bytes()},
          {"reclaimable_bytes", account.reclaimable_bytes()}};
}

Json ToJson(const Workload& workload) {
  return {{"text", workload.ToText()},
          {"sequences", workload.n_sequences},
          {"kv_cells", workload.kv_cells},
          {"longest_sequence_tokens", workload.longest_sequence}};
}

Json ToJson(const TransitionEvent& event) {
  Json pending = Json::array();
  for (const BlockId block : event.pending) {
    pending.push_back(BlockName(block));
  }
  return {{"reason", ReasonName(event.reason)},
          {"at_token", event.at_token},
          {"budget_bytes", LimitJson(event.limit_bytes)},
          {"plan_before", event.plan_before.ToText()},
          {"plan_after", event.plan_after.ToText()},
          {"pending_blocks", pending},
          {"predicted_loss_nats", event.loss ? Json(event.loss->nats) : Json()},
          {"predicted_loss_measured", event.loss && event.loss->measured},
          {"blocks_released", event.moved.n_released},
          {"blocks_loaded", event.moved.n_loaded},
          {"released_bytes", event.moved.released_bytes},
          {"loaded_bytes", event.moved.loaded_bytes},
          {"predicted_bytes_before", event.predicted_bytes_before},
          {"predicted_bytes_after", event.predicted_bytes_after},
          {"before", ToJson(event.before)},
          {"after", ToJson(event.after)},
          {"release_ms", event.moved.release_ms},
          {"load_ms", event.moved.load_ms},
          {"total_ms", event.ms}};
}

Json ModelJson(const Model& model) {
  return {{"path", model.path()},
          {"name", model.display_name()},
          {"architecture", model.architecture().name},
          {"quantization", model.quantization()},
          {"layers", model.n_layer()}};
}

Json LimitJson(uint64_t limit_bytes) { return limit_bytes == UINT64_MAX ? Json() : Json(limit_bytes); }

std::string Dump(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace espalier
