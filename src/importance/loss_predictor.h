// A cheap guess at the loss of plans that were not measured, to decide which to look at first. Log-additive: every
// block multiplies the loss by a factor of its own when it goes. It need not be good, only better than chance: what it
// proposes is measured.
#pragma once

#include <vector>

#include "model/plan.h"
#include "profile/archive.h"

namespace espalier {

class LossPredictor {
 public:
  // Ridge regression of ln(loss + 1e-3) on what is dropped, over the plans of `archive` that were measured whole.
  explicit LossPredictor(const Archive& archive, int n_block);

  // ln of the ratio loss(to) / loss(from), expected.
  double LogRatio(const Plan& from, const Plan& to) const;

 private:
  std::vector<double> weight_;  // by block: what its absence adds to ln(loss)
};

}  // namespace espalier
