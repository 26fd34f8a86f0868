// What people type: plans (also in JSON), blocks to drop, workloads, byte counts. The first byte chooses the number of
// layers.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "cli/plan_file.h"
#include "model/plan.h"
#include "model/workload.h"

namespace {

using espalier::Plan;
using espalier::Workload;

void CheckPlan(const espalier::Result<Plan>& plan, int n_layer) {
  if (!plan.ok()) {
    ESPALIER_CHECK(!plan.status().message().empty());
    return;
  }
  ESPALIER_CHECK(plan->n_layer() == n_layer);
  // The text form must lead back to the same plan: it is what logs and reports hold.
  const auto again = Plan::Parse(plan->ToText(), n_layer);
  ESPALIER_CHECK(again.ok());
  ESPALIER_CHECK(*again == *plan);
  ESPALIER_CHECK(static_cast<int>(plan->dropped().size()) + plan->kept_attention() + plan->kept_ffn() == 2 * n_layer);
}

void CheckWorkload(std::string_view text) {
  const auto workload = Workload::Parse(text);
  if (workload.ok()) {
    ESPALIER_CHECK(workload->n_sequences >= 1 && workload->kv_cells >= 1);
    ESPALIER_CHECK(workload->kv_cells == workload->n_sequences * workload->longest_sequence);
    const auto again = Workload::Parse(workload->ToText());
    ESPALIER_CHECK(again.ok() && *again == *workload);
  }
}

void CheckBytes(std::string_view text) {
  const auto bytes = espalier::ParseBytes(text);
  if (bytes.ok()) {
    ESPALIER_CHECK(*bytes < uint64_t{1} << 63);
    ESPALIER_CHECK(!espalier::FormatBytes(*bytes).empty());
    const auto again = espalier::ParseBytes(std::to_string(*bytes));
    ESPALIER_CHECK(again.ok() && *again == *bytes);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) {
    return 0;
  }
  const int n_layer = data[0] % 64 + 1;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  CheckPlan(Plan::Parse(text, n_layer), n_layer);
  CheckPlan(Plan::ParseDrop(text, n_layer), n_layer);
  CheckPlan(espalier::ParseJsonPlan(text, n_layer), n_layer);
  CheckWorkload(text);
  CheckBytes(text);
  return 0;
}
