#include "rl/exact.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <tuple>

#include "base/check.h"

namespace espalier {
namespace {

// Blocks of one sort, by rising value.
using Sort = std::vector<BlockId>;

std::vector<Sort> SortsOf(const Observation& task, std::span<const double> values) {
  const MemoryModel& memory = *task.memory;
  std::map<std::tuple<bool, uint64_t, uint64_t>, Sort> sorts;
  for (int b = 0; b < static_cast<int>(memory.block_bytes.size()); ++b) {
    const auto i = static_cast<size_t>(b);
    const uint64_t staging = i < memory.block_staging_bytes.size() ? memory.block_staging_bytes[i] : 0;
    sorts[{BlockId{b}.is_attention(), memory.block_bytes[i], staging}].push_back({b});
  }
  std::vector<Sort> result;
  for (auto& [key, blocks] : sorts) {
    std::stable_sort(blocks.begin(), blocks.end(), [&](BlockId a, BlockId b) {
      return values[static_cast<size_t>(a.index)] < values[static_cast<size_t>(b.index)];
    });
    result.push_back(std::move(blocks));
  }
  return result;
}

class Episodes {
 public:
  Episodes(const Observation& task, std::span<const double> values, double gamma)
      : task_(task), values_(values), gamma_(gamma), sorts_(SortsOf(task, values)) {
    for (const Sort& sort : sorts_) {
      stride_.push_back(n_states_);
      n_states_ *= sort.size() + 1;
    }
  }

  size_t n_states() const { return n_states_; }

  Result<BestEpisode> Solve() {
    // Dropping a block leads to a larger state: from the last one down, what follows is known.
    best_.assign(n_states_, 0);
    choice_.assign(n_states_, kFits);
    for (size_t state = n_states_; state-- > 0;) {
      SolveState(state);
    }
    BestEpisode episode;
    size_t state = 0;
    episode.value = best_[0];
    while (choice_[state] != kFits) {
      if (choice_[state] == kStuck) {
        return OutOfBudget(
            fmt::format("no plan fits into {} bytes at workload {}", task_.limit_bytes, task_.workload.ToText()));
      }
      const auto sort = static_cast<size_t>(choice_[state]);
      episode.dropped.push_back(sorts_[sort][CountOf(state, sort)]);
      state += stride_[sort];
    }
    return episode;
  }

 private:
  static constexpr int kFits = -1;
  static constexpr int kStuck = -2;

  size_t CountOf(size_t state, size_t sort) const { return state / stride_[sort] % (sorts_[sort].size() + 1); }

  Plan PlanOf(size_t state) const {
    Plan plan = Plan::Dense(task_.n_layer());
    for (size_t sort = 0; sort < sorts_.size(); ++sort) {
      for (size_t i = 0; i < CountOf(state, sort); ++i) {
        plan.Drop(sorts_[sort][i]);
      }
    }
    return plan;
  }

  double RewardOf(size_t state) const {
    double sum = 0;
    for (size_t sort = 0; sort < sorts_.size(); ++sort) {
      for (size_t i = CountOf(state, sort); i < sorts_[sort].size(); ++i) {
        sum += values_[static_cast<size_t>(sorts_[sort][i].index)];
      }
    }
    return sum;
  }

  void SolveState(size_t state) {
    if (Fits(task_, FootprintOf(task_, PlanOf(state)))) {
      return;
    }
    double best = -std::numeric_limits<double>::infinity();
    choice_[state] = kStuck;
    for (size_t sort = 0; sort < sorts_.size(); ++sort) {
      if (CountOf(state, sort) == sorts_[sort].size()) {
        continue;
      }
      const size_t next = state + stride_[sort];
      const double value = RewardOf(next) + gamma_ * best_[next];
      if (choice_[next] != kStuck && value > best) {
        best = value;
        choice_[state] = static_cast<int>(sort);
      }
    }
    best_[state] = best;
  }

  const Observation& task_;
  std::span<const double> values_;
  double gamma_;
  std::vector<Sort> sorts_;
  std::vector<size_t> stride_;
  size_t n_states_ = 1;
  std::vector<double> best_;
  std::vector<int> choice_;
};

}  // namespace

Result<BestEpisode> BestAdditiveEpisode(const Observation& task, std::span<const double> values, double gamma) {
  ESPALIER_CHECK(values.size() == task.memory->block_bytes.size());
  constexpr size_t kMostStates = 10'000'000;
  Episodes episodes(task, values, gamma);
  if (episodes.n_states() > kMostStates) {
    return Unsupported(fmt::format("the exact optimum looks at {} combinations of block counts, at most {} are allowed",
                                   episodes.n_states(), kMostStates));
  }
  return episodes.Solve();
}

}  // namespace espalier
