// What a decision costs in quality, and the floor below which none is taken.
#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "policy/loss_table.h"
#include "policy/policy.h"

namespace espalier {

// Another policy's decisions, with the loss that the profile predicts for them. Above `max_loss` (nats per token), or
// where there is a floor and nothing is known about the loss, the decision is refused: kOutOfBudget, naming predicted
// loss, floor, and the smallest limit under which a measured plan meets the floor.
class QualityFloor final : public Policy {
 public:
  // REQUIRES: max_loss >= 0 where it is given. Empty: every decision stands.
  QualityFloor(std::unique_ptr<Policy> policy, std::shared_ptr<const LossTable> table, std::optional<double> max_loss)
      : policy_(std::move(policy)), table_(std::move(table)), max_loss_(max_loss) {}

  const char* name() const override { return policy_->name(); }
  Result<Decision> Decide(const Observation& observation) const override;
  std::vector<BlockId> DropOrder(int n_layer) const override { return policy_->DropOrder(n_layer); }

 private:
  std::unique_ptr<Policy> policy_;
  std::shared_ptr<const LossTable> table_;
  std::optional<double> max_loss_;
};

}  // namespace espalier
