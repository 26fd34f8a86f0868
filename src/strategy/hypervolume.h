// The hypervolume indicator: how much of the objective space a set of plans dominates, exact in two dimensions
// (Zitzler and Thiele 1999).
#pragma once

#include <vector>

namespace espalier {

// Both to be small.
struct ObjectivePoint {
  double size = 0;
  double loss = 0;
};

// The area that lies between the points and `reference`, which has to be worse than what counts: points that are not
// better than it in both add nothing. O(n log n).
double Hypervolume(std::vector<ObjectivePoint> points, ObjectivePoint reference);

}  // namespace espalier
