// A progress bar with the time that is left, for work of more than two seconds.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace espalier {

// On stderr, and only if that is a terminal. Thread rule: one thread.
class ProgressBar {
 public:
  explicit ProgressBar(std::string what);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // `detail` is shown behind the bar, as far as there is room. REQUIRES: done <= total
  void Update(uint64_t done, uint64_t total, std::string_view detail = {});

 private:
  using Clock = std::chrono::steady_clock;
  std::string what_;
  bool enabled_;
  bool shown_ = false;
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_drawn_ = start_;
};

}  // namespace espalier
