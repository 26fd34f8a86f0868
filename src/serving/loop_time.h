// Between the clock's ticks and the units of options and reports.
#pragma once

#include <chrono>

namespace espalier {

using LoopTime = std::chrono::steady_clock::time_point;

inline double SecondsBetween(LoopTime from, LoopTime to) { return std::chrono::duration<double>(to - from).count(); }
inline double MillisecondsBetween(LoopTime from, LoopTime to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}
inline LoopTime::duration Ticks(double ms) {
  return std::chrono::duration_cast<LoopTime::duration>(std::chrono::duration<double, std::milli>(ms));
}

}  // namespace espalier
