#include "strategy/compression_request.h"

#include <fmt/format.h>

#include <algorithm>

namespace espalier {

using Target = CompressionRequest::Target;

const ArchiveRow* BestMeasured(const Archive& archive, const PlanBytes& cost, uint64_t limit) {
  const ArchiveRow* best = nullptr;
  double least = 0;
  for (const ArchiveRow& row : archive.rows()) {
    if (archive.whole(row) && row.plan.whole_blocks_only() && cost(row.plan) <= limit) {
      const double loss = archive.Loss(row);
      if (best == nullptr || loss < least) {
        best = &row;
        least = loss;
      }
    }
  }
  return best;
}

void CountBytes(const RequestBytes& bytes, CompressionAnswer* answer) {
  answer->bytes = bytes.of()(answer->plan);
  if (answer->limit_bytes > 0 && !answer->plan.dense()) {
    answer->next_bytes = BytesWithOneMore(bytes.of(), answer->plan);
  }
}

uint64_t LeastOf(const PlanBytes& cost, int n_layer) {
  Plan plan = Plan::Nothing(n_layer);
  uint64_t least = kNoSuchPlan;
  for (int b = 0; b < plan.n_block(); ++b) {
    plan.Restore({b});
    least = std::min(least, cost(plan));
    plan.Drop({b});
  }
  return least;
}

RequestBytes::RequestBytes(const MemoryModel& memory, const PlanBytes& file_bytes,
                           const std::optional<Workload>& workload)
    : workload_(workload), n_layer_(static_cast<int>(memory.block_bytes.size() / 2)) {
  if (workload) {
    MemoryModel sized = memory;
    sized.kv.capacity = workload->kv_cells;
    of_ = [sized, at = *workload](const Plan& plan) {
      return plan.keeps_nothing() ? kNoSuchPlan : PredictFootprint(sized, plan, at).peak_bytes();
    };
  } else {
    of_ = [file_bytes](const Plan& plan) { return plan.keeps_nothing() ? kNoSuchPlan : file_bytes(plan); };
  }
  dense_ = of_(Plan::Dense(n_layer_));
}

Result<uint64_t> RequestBytes::LimitOf(const CompressionRequest& request) const {
  if (request.target != Target::kBytes && request.target != Target::kSizeRatio) {
    return InvalidArgument(fmt::format("expected a target in bytes, \"max_bytes\" or \"size_ratio\", found \"{}\"",
                                       TargetName(request.target)));
  }
  if (request.target == Target::kSizeRatio && !(request.value > 0 && request.value <= 1)) {
    return InvalidArgument(
        fmt::format("field \"size_ratio\": expected a share above 0 and at most 1, found {}", request.value));
  }
  const double bytes = request.target == Target::kBytes ? request.value : request.value * static_cast<double>(dense_);
  const auto limit = static_cast<uint64_t>(std::clamp(bytes, 0.0, 0x1p63));
  const uint64_t least = LeastOf(of_, n_layer_);
  if (limit < least) {
    return OutOfBudget(fmt::format(
        "field \"{}\": {} bytes are below the least that a plan of whole blocks takes{}, {} bytes ({:.4f} of the dense "
        "model's {})",
        TargetName(request.target), limit, workload_ ? " at workload " + workload_->ToText() : " in a file", least,
        static_cast<double>(least) / static_cast<double>(dense_), dense_));
  }
  return limit;
}

}  // namespace espalier
