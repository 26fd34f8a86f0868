#include "importance/exhaustive.h"

#include <fmt/format.h>

namespace espalier {

Status MeasureEveryPlan(PlanEvaluator* evaluator, const std::function<void(int64_t, int64_t)>& progress) {
  const int n_block = evaluator->model().n_block();
  if (n_block > kMaxExhaustiveBlocks) {
    return InvalidArgument(fmt::format("all plans of {}: {} blocks make 2^{} of them, at most 2^{} are measured",
                                       evaluator->model().path(), n_block, n_block, kMaxExhaustiveBlocks));
  }
  const int64_t total = int64_t{1} << n_block;
  for (int64_t dropped = 0; dropped < total; ++dropped) {
    Plan plan = Plan::Dense(evaluator->model().n_layer());
    for (int b = 0; b < n_block; ++b) {
      // The last block is the lowest bit: it changes most often.
      if ((dropped >> (n_block - 1 - b) & 1) != 0) {
        plan.Drop({b});
      }
    }
    ESPALIER_RETURN_IF_ERROR(evaluator->Measure(plan).status());
    if (progress) {
      progress(dropped + 1, total);
    }
  }
  return Status::Ok();
}

}  // namespace espalier
