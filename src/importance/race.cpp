#include "importance/race.h"

#include <algorithm>

#include "base/check.h"

namespace espalier {

int64_t ScreeningWindows(const PlanEvaluator& evaluator) { return (evaluator.n_windows() + 7) / 8; }

Result<double> MeasureFirst(PlanEvaluator* evaluator, const Plan& plan, int64_t windows) {
  double sum = 0;
  for (int64_t window = 0; window < windows; ++window) {
    ESPALIER_ASSIGN_OR_RETURN(const WindowLoss loss, evaluator->MeasureWindow(plan, window));
    sum += loss.kl;
  }
  return sum;
}

Result<std::vector<Finalist>> Race(PlanEvaluator* evaluator, const Plan& base, std::span<const Contender> contenders) {
  ESPALIER_CHECK(!contenders.empty());
  std::vector<Finalist> running(contenders.size());
  for (size_t i = 0; i < running.size(); ++i) {
    running[i].index = i;
  }
  struct Stage {
    int64_t windows;
    size_t survivors;
  };
  const int64_t all = evaluator->n_windows();
  const size_t n = contenders.size();
  const Stage stages[] = {{ScreeningWindows(*evaluator), std::max<size_t>(3, (n + 2) / 3)},
                          {(all + 1) / 2, std::max<size_t>(2, (n + 11) / 12)},
                          {all, 0}};
  for (const Stage& stage : stages) {
    ESPALIER_ASSIGN_OR_RETURN(const double base_sum, MeasureFirst(evaluator, base, stage.windows));
    for (Finalist& finalist : running) {
      const Contender& contender = contenders[finalist.index];
      ESPALIER_ASSIGN_OR_RETURN(const double sum, MeasureFirst(evaluator, contender.plan, stage.windows));
      finalist.key = (sum - base_sum) / contender.bytes;
    }
    std::stable_sort(running.begin(), running.end(),
                     [](const Finalist& a, const Finalist& b) { return a.key < b.key; });
    if (stage.windows < all && running.size() > stage.survivors) {
      running.resize(stage.survivors);
    }
  }
  return running;
}

}  // namespace espalier
