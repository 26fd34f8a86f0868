#include "importance/best_first.h"

#include <queue>
#include <utility>
#include <vector>

#include "base/check.h"

namespace espalier {
namespace {

// Ordered by (bound, index): a candidate that is done comes out before later ones of the same bound, but only after
// earlier ones have shown that they are worse.
struct Entry {
  double bound;
  size_t index;
  int64_t windows;
  friend bool operator>(const Entry& a, const Entry& b) {
    return std::pair(a.bound, a.index) > std::pair(b.bound, b.index);
  }
};

}  // namespace

Result<LeastLoss> FindLeastLoss(PlanEvaluator* evaluator, std::span<const Plan> candidates, double upper_bound) {
  ESPALIER_CHECK(!candidates.empty());
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> open;
  for (size_t i = 0; i < candidates.size(); ++i) {
    open.push({0, i, 0});
  }
  while (true) {
    Entry entry = open.top();
    if (entry.bound > upper_bound) {
      return LeastLoss{candidates.size(), entry.bound};
    }
    if (entry.windows == evaluator->n_windows()) {
      return LeastLoss{entry.index, entry.bound};
    }
    open.pop();
    ESPALIER_ASSIGN_OR_RETURN(const WindowLoss loss, evaluator->MeasureWindow(candidates[entry.index], entry.windows));
    entry.bound += loss.kl;
    ++entry.windows;
    open.push(entry);
  }
}

}  // namespace espalier
