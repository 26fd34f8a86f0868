#include "eval/plan_run.h"

#include <vector>

namespace espalier {
namespace {

void AddToEveryRow(std::span<const float> mean, std::span<float> hidden) {
  for (size_t row = 0; row < hidden.size(); row += mean.size()) {
    for (size_t i = 0; i < mean.size(); ++i) {
      hidden[row + i] += mean[i];
    }
  }
}

}  // namespace

Status RunPlan(BlockRunner* runner, const PlanRun& run, std::span<float> hidden, double* flops) {
  const auto n_tokens = static_cast<int64_t>(hidden.size()) / runner->model().hparams().n_embd;
  std::vector<BlockId> together;  // blocks without a mean between them
  const auto flush = [&]() -> Status {
    if (together.empty()) {
      return Status::Ok();
    }
    for (const BlockId block : together) {
      *flops += runner->BlockFlops(block, n_tokens);
    }
    const Status status = runner->RunAll(together, hidden, hidden);
    together.clear();
    return status;
  };
  for (int b = run.first; b < run.last; ++b) {
    const BlockId block{b};
    if (run.plan.kept(block)) {
      together.push_back(block);
    } else if (run.means != nullptr) {
      ESPALIER_RETURN_IF_ERROR(flush());
      AddToEveryRow(run.means->of(block), hidden);
    }
  }
  return flush();
}

}  // namespace espalier
