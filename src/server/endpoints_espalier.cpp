#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/process_memory.h"
#include "model/quote.h"
#include "server/api_fields.h"
#include "server/endpoints.h"
#include "server/endpoints_parts.h"
#include "server/state_json.h"

namespace espalier {
namespace {

constexpr const char* kField = "memory_budget";

// memory_budget, in the flag's grammar; a number is bytes.
ApiResult<std::optional<Budget>> ReadSetting(const nlohmann::json& body) {
  for (const auto& member : body.items()) {
    if (member.key() != kField) {
      return InvalidRequest(member.key(), fmt::format("field {}: expected only '{}'", Quote(member.key()), kField));
    }
  }
  const FieldReader fields(body);
  const nlohmann::json* value = fields.Find(kField);
  constexpr const char* kForms = "bytes (700MiB, or a number), a percentage (70%) or auto";
  if (value == nullptr) {
    return WrongValue(kField, kForms, nlohmann::json());
  }
  if (!value->is_string()) {
    const std::optional<int64_t> bytes = IntegerIn(*value, 1, std::numeric_limits<int64_t>::max());
    if (!bytes) {
      return WrongValue(kField, kForms, *value);
    }
    return std::optional(Budget::Bytes(static_cast<uint64_t>(*bytes)));
  }
  const auto setting = ParseBudgetSetting(value->get_ref<const std::string&>());
  if (!setting.ok()) {
    return InvalidRequest(kField, setting.status().message());
  }
  return *setting;
}

int64_t AsInt64(uint64_t bytes) {
  return static_cast<int64_t>(std::min<uint64_t>(bytes, std::numeric_limits<int64_t>::max()));
}

ApiError BelowMinimum(uint64_t limit_bytes, uint64_t minimum_bytes) {
  ApiError error = InvalidRequest(
      kField, fmt::format("memory budget of {} bytes ({}): can never be met, expected at "
                          "least {} bytes ({})",
                          limit_bytes, FormatBytes(limit_bytes), minimum_bytes, FormatBytes(minimum_bytes)));
  error.status = 409;
  error.code = "budget_below_minimum";
  error.numbers = {{"minimum_bytes", AsInt64(minimum_bytes)}, {"budget_bytes", AsInt64(limit_bytes)}};
  return error;
}

// When the limit holds at the latest: the step that runs now, a tick, and the time to move what is above the limit.
int64_t DeadlineMs(const Served& served, const LoopSnapshot& snapshot, uint64_t limit_bytes) {
  constexpr double kLeastStepMs = 250;  // prefills beside answers are sized for about this long
  const double step_ms = std::max(snapshot.step_ms, kLeastStepMs);
  constexpr double kMsPerGib = 25;
  const uint64_t used = snapshot.managed.total() + snapshot.process_bytes;
  const uint64_t moved = used > limit_bytes ? used - limit_bytes : 0;
  return std::llround(std::ceil(step_ms + served.loop->options().tick_ms +
                                kMsPerGib * static_cast<double>(moved) / static_cast<double>(kGiB)));
}

}  // namespace

HttpResponse MemoryAnswer(const Served& served) {
  const LoopSnapshot snapshot = served.loop->snapshot();
  Json memory = MemoryJson(snapshot);
  // What the kernel says; null where it does not.
  for (const char* name : {"anonymous_bytes", "measured_managed_bytes", "reclaimable_bytes"}) {
    memory[name] = nullptr;
  }
  if (const auto measured = ReadProcessMemory(); measured.ok()) {
    const uint64_t anonymous = measured->anonymous_bytes;
    memory["anonymous_bytes"] = anonymous;
    memory["measured_managed_bytes"] = anonymous > snapshot.process_bytes ? anonymous - snapshot.process_bytes : 0;
    memory["reclaimable_bytes"] = measured->file_bytes;
  }
  return JsonAnswer(memory);
}

HttpResponse PlanAnswer(const Served& served) {
  return JsonAnswer(PlanJson(served.loop->snapshot(), ModelSummaryOf(*served.model, served.name).block_bytes));
}

HttpResponse StateAnswer(const Served& served) {
  return JsonAnswer(StateJson(served.loop->snapshot(), ModelSummaryOf(*served.model, served.name)));
}

ApiResult<HttpResponse> SetBudgetAnswer(const Served& served, std::string_view body) {
  const ApiResult<nlohmann::json> parsed = ParseBody(body);
  if (IsError(parsed)) {
    return std::get<ApiError>(parsed);
  }
  const auto read = ReadSetting(std::get<nlohmann::json>(parsed));
  if (IsError(read)) {
    return std::get<ApiError>(read);
  }
  const auto& setting = std::get<std::optional<Budget>>(read);
  const LoopSnapshot snapshot = served.loop->snapshot();
  const uint64_t limit = setting ? setting->LimitBytes(served.base) : std::numeric_limits<uint64_t>::max();
  if (limit < snapshot.minimum_bytes) {
    return BelowMinimum(limit, snapshot.minimum_bytes);
  }
  served.budget->SetOperator(setting);
  served.loop->Wake();
  return JsonAnswer({{"budget_bytes", LimitJson(limit)},
                     {"source", setting ? "operator" : "auto"},
                     {"deadline_ms", DeadlineMs(served, snapshot, limit)}},
                    202);
}

}  // namespace espalier
