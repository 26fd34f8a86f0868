#include "rl/reward.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "rl/task.h"

namespace espalier {

std::vector<double> BlockValues(const Observation& task, std::span<const double> importance,
                                const PaperRewardOptions& options) {
  const std::vector<double> bytes = BytesByBlock(task);
  ESPALIER_CHECK(importance.size() == bytes.size());
  const double all_importance = std::accumulate(importance.begin(), importance.end(), 0.0);
  const double all_bytes = std::accumulate(bytes.begin(), bytes.end(), 0.0);
  std::vector<double> values(bytes.size());
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = (all_importance > 0 ? options.alpha * importance[i] / all_importance : 0) -
                (all_bytes > 0 ? options.beta * bytes[i] / all_bytes : 0);
  }
  return values;
}

Result<double> PaperReward::Pay(const Plan& plan, bool) {
  double sum = 0;
  for (int b = 0; b < plan.n_block(); ++b) {
    sum += plan.kept({b}) ? values_[static_cast<size_t>(b)] : 0;
  }
  return sum;
}

Result<double> MeasuredReward::Pay(const Plan& plan, bool ended) {
  constexpr double kWorst = -2;
  if (!ended) {
    return 0.0;
  }
  ESPALIER_ASSIGN_OR_RETURN(const double loss, loss_of_(plan));
  return std::max(kWorst, std::log((least_ + kFloor) / (loss + kFloor)));
}

}  // namespace espalier
