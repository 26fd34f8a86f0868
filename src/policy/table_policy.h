// Lookup: the best measured plan that fits.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "policy/loss_table.h"
#include "policy/policy.h"

namespace espalier {

// Loss depends neither on workload nor on budget, so one scan of the measured plans answers any observation with the
// smallest measured loss that its bytes allow. Where no measured plan fits, blocks are dropped in `fallback_order`
// until it does; nothing is known about the loss of such a plan.
class TablePolicy final : public Policy {
 public:
  // REQUIRES: `fallback_order` has every block once.
  TablePolicy(std::shared_ptr<const LossTable> table, std::vector<BlockId> fallback_order)
      : table_(std::move(table)), fallback_order_(std::move(fallback_order)) {}

  const char* name() const override { return "table"; }
  // REQUIRES: an observation of the table's model.
  Result<Decision> Decide(const Observation& observation) const override;
  // The fallback order: the table itself has none.
  std::vector<BlockId> DropOrder(int n_layer) const override;

 private:
  std::shared_ptr<const LossTable> table_;
  std::vector<BlockId> fallback_order_;
};

}  // namespace espalier
