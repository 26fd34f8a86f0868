// Training StratNet: preferences are drawn at random, and the gradient of the Tchebycheff value flows through the
// surrogate's mean into the network (arXiv 2505.12216; the closest public algorithm is PSL-MOBO, NeurIPS 2022).
#pragma once

#include <cstdint>

#include "model/footprint.h"
#include "strategy/strat_net.h"
#include "surrogate/loss_surrogate.h"

namespace espalier {

struct StratTrainingOptions {
  int steps = 1000;
  int requests_per_step = 10;
  double learning_rate = 1e-3;
  // Fractions are pressed towards 0 and 1 while training goes on: the surrogate knows whole blocks only, and so do the
  // plans that are served. Evenly from 1 to this.
  double last_sharpness = 8;
  // Requests: preferences evenly over [0, 1], workloads whose KV cache takes so many times the weights' bytes, evenly
  // by ratio.
  double least_kv_to_weights = 0.05;
  double most_kv_to_weights = 4;
  uint64_t seed = 1;
};

// Trains `net` further, in place. The mean Tchebycheff value over the last tenth of the steps.
// REQUIRES: all of one model.
double TrainStratNet(const LossSurrogate& surrogate, const MemoryModel& memory, double worst_loss,
                     const StratTrainingOptions& options, StratNet* net);

// KV cells at which the dense model's KV cache takes `kv_to_weights` times the bytes of its weights.
int64_t CellsOf(const MemoryModel& memory, double kv_to_weights);

}  // namespace espalier
