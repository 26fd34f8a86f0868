#include "control/measured_plans.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace espalier {
namespace {

bool KnownWhole(const Archive& archive, const Plan& plan) { return archive.LossOf(plan).has_value(); }

// Kept before dropped, block by block: plans that share their first blocks lie together.
bool InOrderOfPrefixes(const Plan& a, const Plan& b) {
  for (int i = 0; i < a.n_block(); ++i) {
    if (a.keep({i}) != b.keep({i})) {
      return a.keep({i}) > b.keep({i});
    }
  }
  return false;
}

}  // namespace

Result<int64_t> MeasurePlans(std::vector<Plan> plans, PlanEvaluator* evaluator,
                             const std::function<void(int64_t done, int64_t total)>& progress) {
  std::erase_if(plans, [evaluator](const Plan& plan) { return KnownWhole(evaluator->archive(), plan); });
  std::sort(plans.begin(), plans.end(), InOrderOfPrefixes);
  plans.erase(std::unique(plans.begin(), plans.end()), plans.end());
  // Window by window: the activations of one window's plans are few enough to be kept until their neighbours come.
  const auto per_window = static_cast<int64_t>(plans.size());
  const int64_t total = per_window * evaluator->n_windows();
  for (int64_t i = 0; i < total; ++i) {
    const Plan& plan = plans[static_cast<size_t>(i % per_window)];
    ESPALIER_RETURN_IF_ERROR(evaluator->MeasureWindow(plan, i / per_window).status());
    if (progress) {
      progress(i + 1, total);
    }
  }
  return per_window;
}

LossFigures FiguresOf(const Plan& plan, const Archive& archive, double dense_nll, const WindowBootstrap& bootstrap) {
  const ArchiveRow* row = archive.Find(plan);
  if (row == nullptr || !archive.whole(*row)) {
    ESPALIER_CHECK(plan.dense());
    return {0, dense_nll, std::vector<double>(static_cast<size_t>(bootstrap.n_resamples()), 0.0)};
  }
  const double tokens_per_window =
      static_cast<double>(archive.set().tokens_scored) / static_cast<double>(archive.set().n_windows);
  std::vector<double> by_window;
  for (const WindowLoss& window : row->windows) {
    by_window.push_back(window.kl / tokens_per_window);
  }
  return {archive.Loss(*row), archive.MeanNll(*row), bootstrap.Means(by_window)};
}

}  // namespace espalier
