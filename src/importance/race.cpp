#include "importance/race.h"

#include <algorithm>

#include "base/check.h"

namespace espalier {

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
  struct Runner {
    Finalist finalist;
    double hope = 0;  // the key, were the windows seen so far as unlucky as they can well be
  };
  std::vector<Runner> running(contenders.size());
  for (size_t i = 0; i < running.size(); ++i) {
    running[i].finalist.index = i;
  }
  struct Stage {
    int64_t part;      // of the windows: one in so many
    double deviation;  // of the ratio of two similar plans' losses over so many windows from that over all of them
  };
  constexpr Stage kStages[] = {{8, 0.06}, {4, 0.03}, {2, 0.015}, {1, 0}};
  const int64_t all = evaluator->n_windows();
  for (const Stage& stage : kStages) {
    const int64_t windows = (all + stage.part - 1) / stage.part;
    ESPALIER_ASSIGN_OR_RETURN(const double base_sum, MeasureFirst(evaluator, base, windows));
    for (Runner& runner : running) {
      const Contender& contender = contenders[runner.finalist.index];
      ESPALIER_ASSIGN_OR_RETURN(const double sum, MeasureFirst(evaluator, contender.plan, windows));
      runner.finalist.key = (sum - base_sum) / contender.bytes;
      runner.hope = (sum * (1 - 2 * stage.deviation) - base_sum) / contender.bytes;
    }
    std::stable_sort(running.begin(), running.end(),
                     [](const Runner& a, const Runner& b) { return a.finalist.key < b.finalist.key; });
    const double best = running.front().finalist.key;
    std::erase_if(running, [best](const Runner& runner) { return runner.hope > best; });
    const size_t most = std::max<size_t>(3, (contenders.size() + 2) / 3);
    if (running.size() > most) {
      running.resize(most);
    }
  }
  std::vector<Finalist> finalists;
  for (const Runner& runner : running) {
    finalists.push_back(runner.finalist);
  }
  return finalists;
}

}  // namespace espalier
