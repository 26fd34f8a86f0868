#include "importance/best_first.h"

#include <algorithm>
#include <numeric>
#include <queue>
#include <utility>
#include <vector>

#include "base/check.h"

namespace espalier {
namespace {

// What is known of a candidate's windows: the first `measured` ones exactly, others from below.
struct Knowledge {
  std::vector<double> bounds;  // of every window; 0 where nothing is known
  int64_t bounded = 0;         // how many have been bounded
  int64_t measured = 0;
  double kl = 0;  // of the measured windows, added up in order

  double Total() const { return std::accumulate(bounds.begin() + measured, bounds.end(), kl); }
};

// Ordered by (total, index): a candidate that is done comes out before later ones of the same bound, but only after
// earlier ones have shown that they are worse.
using Entry = std::pair<double, size_t>;

// All windows, those first in which `base` loses most; in their order where it was not measured.
std::vector<int64_t> WindowsByLoss(const PlanEvaluator& evaluator, const Plan& base) {
  std::vector<int64_t> order(static_cast<size_t>(evaluator.n_windows()));
  std::iota(order.begin(), order.end(), int64_t{0});
  const ArchiveRow* const row = evaluator.archive().Find(base);
  if (row != nullptr && row->windows.size() == order.size()) {
    std::stable_sort(order.begin(), order.end(), [row](int64_t a, int64_t b) {
      return row->windows[static_cast<size_t>(a)].kl > row->windows[static_cast<size_t>(b)].kl;
    });
  }
  return order;
}

// One window further: a bound, or, where all windows have one, a measurement.
Status Advance(PlanEvaluator* evaluator, const Plan& plan, std::span<const int64_t> order, Knowledge* known) {
  if (known->bounded < evaluator->n_windows()) {
    const int64_t window = order[static_cast<size_t>(known->bounded)];
    ESPALIER_ASSIGN_OR_RETURN(known->bounds[static_cast<size_t>(window)], evaluator->BoundWindow(plan, window));
    ++known->bounded;
    return Status::Ok();
  }
  ESPALIER_ASSIGN_OR_RETURN(const WindowLoss loss, evaluator->MeasureWindow(plan, known->measured));
  ESPALIER_CHECK(loss.kl >= known->bounds[static_cast<size_t>(known->measured)]);
  known->kl += loss.kl;
  ++known->measured;
  return Status::Ok();
}

}  // namespace

Result<LeastLoss> FindLeastLoss(PlanEvaluator* evaluator, const Plan& base, std::span<const Plan> candidates) {
  ESPALIER_CHECK(!candidates.empty());
  const std::vector<int64_t> order = WindowsByLoss(*evaluator, base);
  std::vector<Knowledge> known(candidates.size(), {.bounds = std::vector<double>(order.size())});
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> open;
  for (size_t i = 0; i < candidates.size(); ++i) {
    open.push({0, i});
  }
  while (true) {
    const auto [total, index] = open.top();
    if (known[index].measured == evaluator->n_windows()) {
      return LeastLoss{index, total};
    }
    open.pop();
    ESPALIER_RETURN_IF_ERROR(Advance(evaluator, candidates[index], order, &known[index]));
    open.push({known[index].Total(), index});
  }
}

}  // namespace espalier
