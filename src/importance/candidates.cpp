#include "importance/candidates.h"

namespace espalier {

DropCandidates CandidatesOf(const Plan& base) {
  DropCandidates candidates;
  for (int b = 0; b < base.n_block(); ++b) {
    if (base.kept({b})) {
      candidates.blocks.push_back({b});
      candidates.plans.push_back(base);
      candidates.plans.back().Drop({b});
    }
  }
  return candidates;
}

std::vector<Plan> SwapsOf(const Plan& plan) {
  std::vector<Plan> swaps;
  for (int returning = 0; returning < plan.n_block(); ++returning) {
    if (plan.kept({returning})) {
      continue;
    }
    for (int going = returning % 2; going < plan.n_block(); going += 2) {
      if (plan.kept({going})) {
        swaps.push_back(plan);
        swaps.back().Restore({returning});
        swaps.back().Drop({going});
      }
    }
  }
  return swaps;
}

}  // namespace espalier
