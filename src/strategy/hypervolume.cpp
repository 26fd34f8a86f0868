#include "strategy/hypervolume.h"

#include <algorithm>

namespace espalier {

double Hypervolume(std::vector<ObjectivePoint> points, ObjectivePoint reference) {
  std::sort(points.begin(), points.end(), [](const ObjectivePoint& a, const ObjectivePoint& b) {
    return a.size != b.size ? a.size < b.size : a.loss < b.loss;
  });
  double area = 0;
  double least_loss = reference.loss;
  for (const ObjectivePoint& point : points) {
    if (point.size < reference.size && point.loss < least_loss) {
      area += (reference.size - point.size) * (least_loss - point.loss);
      least_loss = point.loss;
    }
  }
  return area;
}

}  // namespace espalier
