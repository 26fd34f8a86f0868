#include "importance/fronts.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace espalier {

Fronts::Fronts(const MemoryModel& memory, std::vector<int64_t> kv_cells)
    : other_bytes_(static_cast<double>(memory.global_bytes + memory.compute_bytes)), fronts_(kv_cells.size()) {
  for (const uint64_t bytes : memory.block_bytes) {
    block_bytes_.push_back(static_cast<double>(bytes));
  }
  for (const int64_t cells : kv_cells) {
    kv_bytes_.push_back(static_cast<double>(KvBytesOfFullCache(memory.kv, cells)));
  }
}

double Fronts::Bytes(const Plan& plan, size_t front) const {
  double bytes = other_bytes_;
  for (int b = 0; b < plan.n_block(); ++b) {
    if (plan.kept({b})) {
      bytes += block_bytes_[static_cast<size_t>(b)] + (BlockId{b}.is_attention() ? kv_bytes_[front] : 0);
    }
  }
  return bytes;
}

Fronts::Front::const_iterator Fronts::FirstAbove(const Front& front, double bytes) {
  return std::upper_bound(front.begin(), front.end(), bytes,
                          [](double value, const Point& point) { return value < point.bytes; });
}

bool Fronts::Add(const Plan& plan, double loss) {
  bool entered = false;
  for (size_t f = 0; f < fronts_.size(); ++f) {
    Front& front = fronts_[f];
    const double bytes = Bytes(plan, f);
    const auto above = FirstAbove(front, bytes);
    if (above != front.begin() && std::prev(above)->loss <= loss) {
      continue;
    }
    // Points of as many bytes or more whose loss is not less go.
    auto first = above;
    while (first != front.begin() && std::prev(first)->bytes >= bytes) {
      --first;
    }
    auto last = above;
    while (last != front.end() && last->loss >= loss) {
      ++last;
    }
    front.insert(front.erase(first, last), Point{bytes, loss, plan});
    entered = true;
  }
  return entered;
}

void Fronts::AddAll(const Archive& archive) {
  for (const ArchiveRow& row : archive.rows()) {
    if (archive.whole(row)) {
      Add(row.plan, archive.Loss(row));
    }
  }
}

double Fronts::LossToBeat(const Plan& plan) const {
  double most = 0;
  for (size_t f = 0; f < fronts_.size(); ++f) {
    const Front& front = fronts_[f];
    const auto above = FirstAbove(front, Bytes(plan, f));
    if (above == front.begin()) {
      return std::numeric_limits<double>::infinity();
    }
    most = std::max(most, std::prev(above)->loss);
  }
  return most;
}

double Fronts::Gain(const Plan& plan, double loss, double floor) const {
  double gain = 0;
  for (size_t f = 0; f < fronts_.size(); ++f) {
    const Front& front = fronts_[f];
    double from = Bytes(plan, f);
    auto next = FirstAbove(front, from);
    // From one point of the front to the next, as long as the front's loss is above the plan's.
    for (; next != front.begin() && next != front.end() && std::prev(next)->loss > loss; ++next) {
      const double depth = std::log((std::prev(next)->loss + floor) / (loss + floor));
      gain += depth * std::log(next->bytes / from);
      from = next->bytes;
    }
  }
  return gain;
}

std::vector<Plan> Fronts::Plans() const {
  std::vector<const Point*> points;
  for (const Front& front : fronts_) {
    for (const Point& point : front) {
      points.push_back(&point);
    }
  }
  std::stable_sort(points.begin(), points.end(), [](const Point* a, const Point* b) { return a->loss < b->loss; });
  std::vector<Plan> plans;
  for (const Point* point : points) {
    if (std::find(plans.begin(), plans.end(), point->plan) == plans.end()) {
      plans.push_back(point->plan);
    }
  }
  return plans;
}

}  // namespace espalier
