#include "strategy/objectives.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "surrogate/loss_surrogate.h"

namespace espalier {

Objectives::Objectives(const MemoryModel& memory, int64_t kv_cells, double worst_loss)
    : size_by_keep_(static_cast<Eigen::Index>(memory.block_bytes.size())),
      log_floor_(std::log(LossSurrogate::kFloor)),
      loss_by_log_(1 / (std::log(worst_loss + LossSurrogate::kFloor) - log_floor_)) {
  ESPALIER_CHECK(worst_loss > 0);
  const auto kv = static_cast<double>(KvBytesOfFullCache(memory.kv, kv_cells));
  for (Eigen::Index b = 0; b < size_by_keep_.size(); ++b) {
    const auto weights = static_cast<double>(memory.block_bytes[static_cast<size_t>(b)]);
    size_by_keep_[b] = BlockId{static_cast<int>(b)}.is_attention() ? weights + kv : weights;
  }
  size_by_keep_ /= size_by_keep_.sum();
}

Scalarised AugmentedTchebycheff(Preference preference, double size, double loss) {
  constexpr double kAugmentation = 0.01;
  const double of_size = preference.size * size;
  const double of_loss = (1 - preference.size) * loss;
  const bool size_is_worse = of_size >= of_loss;
  return {std::max(of_size, of_loss) + kAugmentation * (size + loss),
          kAugmentation + (size_is_worse ? preference.size : 0),
          kAugmentation + (size_is_worse ? 0 : 1 - preference.size)};
}

}  // namespace espalier
