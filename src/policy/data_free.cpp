#include "policy/data_free.h"

#include <algorithm>
#include <cstdlib>
#include <tuple>

namespace espalier {
namespace {

constexpr int kProtectedFirstLayers = 2;

// Blocks with smaller keys go first.
auto DropKey(BlockId block, int n_layer) {
  const int layer = block.layer();
  // In fifths of a layer, so that the centre at three fifths of the depth is an integer.
  const int distance = std::abs(5 * layer - 3 * (n_layer - 1));
  const bool last = layer == n_layer - 1;
  const int protection = layer < kProtectedFirstLayers ? 1 + kProtectedFirstLayers - layer : (last ? 1 : 0);
  return std::tuple(protection, distance, !block.is_attention(), -layer);
}

}  // namespace

std::vector<BlockId> DataFreePolicy::DropOrder(int n_layer) const {
  std::vector<BlockId> order;
  for (int i = 0; i < 2 * n_layer; ++i) {
    order.push_back({i});
  }
  std::sort(order.begin(), order.end(),
            [n_layer](BlockId a, BlockId b) { return DropKey(a, n_layer) < DropKey(b, n_layer); });
  return order;
}

Result<Decision> DataFreePolicy::Decide(const Observation& observation) const {
  return DropUntilItFits(observation, DropOrder(observation.n_layer()));
}

}  // namespace espalier
