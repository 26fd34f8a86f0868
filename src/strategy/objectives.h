// The two objectives of UniCuCo (arXiv 2505.12216) on scales of about the same size, so that preferences between them
// spread over [0, 1]; and how a preference makes one number of two.
//
// The paper's size counts all blocks alike. Ours is bytes at a workload, KV cache included: what is worth dropping
// depends on it.
#pragma once

#include <Eigen/Core>
#include <cstdint>

#include "model/footprint.h"

namespace espalier {

// Of one model at one workload. Both are to be small.
class Objectives {
 public:
  // `worst_loss`: nats per token, of the model without any block. REQUIRES: worst_loss > 0
  Objectives(const MemoryModel& memory, int64_t kv_cells, double worst_loss);

  // Bytes of weights and KV that depend on the plan, as a share of the dense model's: 0 with every block dropped, 1
  // dense. Linear in the keep fractions.
  double Size(const Eigen::Ref<const Eigen::VectorXd>& keep) const { return size_by_keep_.dot(keep); }
  // By block; they sum up to 1.
  const Eigen::VectorXd& size_by_keep() const { return size_by_keep_; }

  // From ln(loss + kFloor), which the surrogate speaks in: 0 dense, 1 without any block; linear.
  double Loss(double log_loss) const { return (log_loss - log_floor_) * loss_by_log_; }
  double loss_by_log() const { return loss_by_log_; }

 private:
  Eigen::VectorXd size_by_keep_;
  double log_floor_;
  double loss_by_log_;
};

// What a request gives up for what: the weight of size, that of loss being 1 less it.
struct Preference {
  double size = 0.5;
};

// The augmented weighted Tchebycheff value max(w_size * size, w_loss * loss) + 0.01 (size + loss), from the ideal point
// (0, 0). Unlike a weighted sum it is least at every point of a front, also where that is concave; the small sum tells
// points apart that are equal in the worse objective (Steuer and Choo 1983).
struct Scalarised {
  double value = 0;
  double by_size = 0;  // derivatives
  double by_loss = 0;
};
Scalarised AugmentedTchebycheff(Preference preference, double size, double loss);

}  // namespace espalier
