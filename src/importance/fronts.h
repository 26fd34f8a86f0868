// The plans of an archive that nothing beats, at several workloads at once.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/footprint.h"
#include "model/plan.h"
#include "profile/archive.h"

namespace espalier {

// One front per number of KV cells: plans measured whole, by rising bytes and falling loss, none with both more bytes
// and more loss than another. The dense plan, whose loss is 0, closes every front.
class Fronts {
 public:
  Fronts(const MemoryModel& memory, std::vector<int64_t> kv_cells);

  // Puts the plan in wherever it belongs; true if it entered a front.
  bool Add(const Plan& plan, double loss);
  void AddAll(const Archive& archive);

  // The least loss known for a plan of no more bytes than `plan`, at the workload where that is largest: what a
  // measurement of `plan` has to beat to be of use anywhere. Infinity if no plan known is as small.
  double LossToBeat(const Plan& plan) const;

  // What the fronts would gain if `plan` lost `loss`: the area between them and the fronts with it, of ln(loss + floor)
  // over ln(bytes), the rest of the model included, summed over the workloads. A gain that holds for few bytes is
  // small.
  double Gain(const Plan& plan, double loss, double floor) const;

  // All plans on some front, each once, by rising loss.
  std::vector<Plan> Plans() const;

 private:
  struct Point {
    double bytes;
    double loss;
    Plan plan;
  };
  using Front = std::vector<Point>;  // by rising bytes

  double Bytes(const Plan& plan, size_t front) const;
  // The first point that takes more bytes; what lies before it takes no more.
  static Front::const_iterator FirstAbove(const Front& front, double bytes);

  double other_bytes_;  // globals and compute
  std::vector<double> block_bytes_;
  std::vector<double> kv_bytes_;  // per front: of one attention block
  std::vector<Front> fronts_;
};

}  // namespace espalier
