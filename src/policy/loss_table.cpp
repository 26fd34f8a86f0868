#include "policy/loss_table.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <tuple>
#include <utility>

#include "base/check.h"

namespace espalier {
namespace {

using Bits = std::vector<uint64_t>;

constexpr size_t kWordBits = 64;

// The blocks that stay whole.
Bits KeptBits(const Plan& plan) {
  Bits bits((static_cast<size_t>(plan.n_block()) + kWordBits - 1) / kWordBits, 0);
  for (int i = 0; i < plan.n_block(); ++i) {
    if (plan.keep({i}) == 1) {
      bits[static_cast<size_t>(i) / kWordBits] |= uint64_t{1} << (static_cast<size_t>(i) % kWordBits);
    }
  }
  return bits;
}

// Managed + process bytes of any set of blocks under one observation, at the peak: PredictFootprint's sum, taken eight
// blocks at a time.
class ByteSums {
 public:
  explicit ByteSums(const Observation& observation) {
    const MemoryModel& memory = *observation.memory;
    rest_ = {
        observation.process_bytes + memory.global_bytes + memory.compute_bytes + memory.work_bytes + memory.host_bytes,
        memory.global_staging_bytes};
    const uint64_t kv = KvBytes(memory.kv, observation.workload);
    const size_t n_block = memory.block_bytes.size();
    n_groups_ = (n_block + kGroup - 1) / kGroup;
    sums_.resize(n_groups_ * kSets);
    for (size_t i = 0; i < n_groups_ * kGroup; ++i) {
      const bool exists = i < n_block;
      const bool attention = BlockId{static_cast<int>(i)}.is_attention();
      const Sum one = {exists ? memory.block_bytes[i] + (attention ? kv : 0) : 0,
                       exists ? memory.block_staging_bytes[i] : 0};
      // Every set whose highest block is this one, from the set without it.
      Sum* group = &sums_[i / kGroup * kSets];
      const size_t bit = size_t{1} << (i % kGroup);
      for (size_t set = bit; set < 2 * bit; ++set) {
        group[set] = {group[set - bit].bytes + one.bytes, std::max(group[set - bit].staging, one.staging)};
      }
    }
  }

  uint64_t Peak(const uint64_t* kept) const {
    Sum sum = rest_;
    for (size_t g = 0; g < n_groups_; ++g) {
      const size_t set = (kept[g / (kWordBits / kGroup)] >> (g % (kWordBits / kGroup) * kGroup)) % kSets;
      const Sum& part = sums_[g * kSets + set];
      sum = {sum.bytes + part.bytes, std::max(sum.staging, part.staging)};
    }
    return sum.bytes + sum.staging;
  }

 private:
  static constexpr size_t kGroup = 8;
  static constexpr size_t kSets = size_t{1} << kGroup;
  struct Sum {
    uint64_t bytes = 0;    // added up
    uint64_t staging = 0;  // the largest
  };
  Sum rest_;
  size_t n_groups_ = 0;
  std::vector<Sum> sums_;  // [group][set of its blocks]
};

}  // namespace

LossTable::LossTable(const Archive* archive, int n_layer)
    : n_layer_(n_layer), n_words_((2 * static_cast<size_t>(n_layer) + kWordBits - 1) / kWordBits) {
  struct Row {
    double loss;
    int n_dropped;
    Bits kept;
  };
  std::vector<Row> rows = {{0, 0, KeptBits(Plan::Dense(n_layer))}};
  for (const ArchiveRow& row : archive != nullptr ? archive->rows() : std::span<const ArchiveRow>()) {
    if (row.plan.n_layer() != n_layer || row.plan.dense() || !row.plan.whole_blocks_only() || !archive->whole(row) ||
        !std::isfinite(archive->Loss(row))) {
      continue;
    }
    rows.push_back({archive->Loss(row), static_cast<int>(row.plan.dropped().size()), KeptBits(row.plan)});
  }
  std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
    return std::tie(a.loss, a.n_dropped, a.kept) < std::tie(b.loss, b.n_dropped, b.kept);
  });
  for (const Row& row : rows) {
    losses_.push_back(row.loss);
    kept_.insert(kept_.end(), row.kept.begin(), row.kept.end());
  }
  by_plan_.resize(losses_.size());
  std::iota(by_plan_.begin(), by_plan_.end(), 0U);
  std::stable_sort(by_plan_.begin(), by_plan_.end(),
                   [&](uint32_t a, uint32_t b) { return rows[a].kept < rows[b].kept; });
}

Plan LossTable::PlanOf(size_t row) const {
  Plan plan = Plan::Dense(n_layer_);
  for (int i = 0; i < plan.n_block(); ++i) {
    if ((kept(row)[static_cast<size_t>(i) / kWordBits] >> (static_cast<size_t>(i) % kWordBits)) % 2 == 0) {
      plan.Drop({i});
    }
  }
  return plan;
}

std::optional<size_t> LossTable::Find(std::span<const uint64_t> bits) const {
  const auto bits_of = [&](uint32_t row) { return std::span(kept(row), n_words_); };
  const auto found = std::lower_bound(by_plan_.begin(), by_plan_.end(), bits, [&](uint32_t row, auto wanted) {
    return std::ranges::lexicographical_compare(bits_of(row), wanted);
  });
  return found != by_plan_.end() && std::ranges::equal(bits_of(*found), bits) ? std::optional<size_t>(*found)
                                                                              : std::nullopt;
}

std::optional<PredictedLoss> LossTable::Predict(const Plan& plan) const {
  ESPALIER_CHECK(plan.n_layer() == n_layer_);
  const Bits wanted = KeptBits(plan);
  if (const auto row = plan.whole_blocks_only() ? Find(wanted) : std::nullopt) {
    return PredictedLoss{losses_[*row], true};
  }
  if (n_words_ == 1) {  // as most models: a cycle for a row
    const uint64_t without = ~wanted[0];
    const auto found = std::find_if(kept_.begin(), kept_.end(), [=](uint64_t bits) { return (bits & without) == 0; });
    return found == kept_.end()
               ? std::nullopt
               : std::optional(PredictedLoss{losses_[static_cast<size_t>(found - kept_.begin())], false});
  }
  for (size_t row = 0; row < size(); ++row) {
    const uint64_t* bits = kept(row);
    uint64_t more = 0;  // kept here, not by the plan
    for (size_t w = 0; w < n_words_; ++w) {
      more |= bits[w] & ~wanted[w];
    }
    if (more == 0) {
      return PredictedLoss{losses_[row], false};
    }
  }
  return std::nullopt;
}

std::optional<Decision> LossTable::BestThatFits(const Observation& observation) const {
  ESPALIER_CHECK(observation.n_layer() == n_layer_);
  const ByteSums sums(observation);
  for (size_t row = 0; row < size(); ++row) {
    if (sums.Peak(kept(row)) > observation.limit_bytes) {
      continue;
    }
    // The shield: what is decided is decided by the footprint.
    Plan plan = PlanOf(row);
    const Footprint footprint = FootprintOf(observation, plan);
    if (Fits(observation, footprint)) {
      return Decision{std::move(plan), footprint, PredictedLoss{losses_[row], true}};
    }
  }
  return std::nullopt;
}

uint64_t LossTable::SmallestLimit(const Observation& observation, double max_loss) const {
  ESPALIER_CHECK(observation.n_layer() == n_layer_);
  const ByteSums sums(observation);
  uint64_t least = UINT64_MAX;
  for (size_t row = 0; row < size() && losses_[row] <= max_loss; ++row) {
    least = std::min(least, sums.Peak(kept(row)));
  }
  return least;
}

}  // namespace espalier
