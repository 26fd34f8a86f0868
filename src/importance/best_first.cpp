#include "importance/best_first.h"

#include <algorithm>
#include <numeric>
#include <queue>
#include <utility>
#include <vector>

#include "base/check.h"

namespace espalier {
namespace {

// What is known of a candidate's windows: first `measured` ones exactly, then up to bounds.size() from below.
struct Knowledge {
  std::vector<double> bounds;
  int64_t measured = 0;
  double kl = 0;  // of the measured windows, added up in order

  double Total() const { return std::accumulate(bounds.begin() + measured, bounds.end(), kl); }
};

// Ordered by (total, index): a candidate that is done comes out before later ones of the same bound, but only after
// earlier ones have shown that they are worse.
using Entry = std::pair<double, size_t>;

Status Advance(PlanEvaluator* evaluator, const Plan& plan, Knowledge* known) {
  const auto bounded = static_cast<int64_t>(known->bounds.size());
  if (bounded < evaluator->n_windows()) {
    ESPALIER_ASSIGN_OR_RETURN(const double bound, evaluator->BoundWindow(plan, bounded));
    known->bounds.push_back(bound);
    return Status::Ok();
  }
  ESPALIER_ASSIGN_OR_RETURN(const WindowLoss loss, evaluator->MeasureWindow(plan, known->measured));
  ESPALIER_CHECK(loss.kl >= known->bounds[static_cast<size_t>(known->measured)]);
  known->kl += loss.kl;
  ++known->measured;
  return Status::Ok();
}

}  // namespace

Result<LeastLoss> FindLeastLoss(PlanEvaluator* evaluator, std::span<const Plan> candidates, double upper_bound) {
  ESPALIER_CHECK(!candidates.empty());
  std::vector<Knowledge> known(candidates.size());
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> open;
  for (size_t i = 0; i < candidates.size(); ++i) {
    open.push({0, i});
  }
  while (true) {
    const auto [total, index] = open.top();
    if (total > upper_bound) {
      return LeastLoss{candidates.size(), total};
    }
    if (known[index].measured == evaluator->n_windows()) {
      return LeastLoss{index, total};
    }
    open.pop();
    ESPALIER_RETURN_IF_ERROR(Advance(evaluator, candidates[index], &known[index]));
    open.push({known[index].Total(), index});
  }
}

}  // namespace espalier
