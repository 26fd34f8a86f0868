// Elapsed wall-clock time.
#pragma once

#include <chrono>

namespace espalier {

// Runs from construction. Thread rule: one thread, or none that calls Lap.
class Stopwatch {
 public:
  double Milliseconds() const { return std::chrono::duration<double, std::milli>(Clock::now() - start_).count(); }
  // Milliseconds(), and starts anew.
  double Lap() {
    const auto now = Clock::now();
    const double ms = std::chrono::duration<double, std::milli>(now - start_).count();
    start_ = now;
    return ms;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

}  // namespace espalier
