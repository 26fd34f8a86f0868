#include "cli/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "cli/terminal.h"

namespace espalier {

ProgressBar::ProgressBar(std::string what) : what_(std::move(what)), enabled_(QueryTerminal(stderr).is_terminal) {}

ProgressBar::~ProgressBar() {
  if (shown_) {
    fmt::print(stderr, "\r\x1b[K");
  }
}

void ProgressBar::Update(uint64_t done, uint64_t total, std::string_view detail) {
  const auto now = Clock::now();
  // Shown after half a second if it will take two or more, which is known by then.
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  if (!enabled_ || total == 0 || elapsed < 0.5 || (shown_ && now - last_drawn_ < std::chrono::milliseconds(100))) {
    return;
  }
  const double share = static_cast<double>(done) / static_cast<double>(total);
  const double left = share > 0 ? elapsed * (1 - share) / share : 0;
  if (!shown_ && elapsed + left < 2) {
    return;
  }
  shown_ = true;
  last_drawn_ = now;
  const int room = QueryTerminal(stderr).width - static_cast<int>(what_.size()) - 24;
  // In steps of four: a bar that changes its length with every digit of the detail is hard to watch.
  const int width = std::clamp((room - static_cast<int>(detail.size()) - 2) / 4 * 4, 8, 40);
  const auto filled = static_cast<size_t>(share * width);
  const auto seconds = static_cast<int64_t>(left + 0.5);
  fmt::print(stderr, "\r\x1b[K{} [{}{}] {:3.0f} % {}:{:02} left{}{}", what_, std::string(filled, '#'),
             std::string(static_cast<size_t>(width) - filled, '-'), share * 100, seconds / 60, seconds % 60,
             detail.empty() ? "" : "  ", detail.substr(0, static_cast<size_t>(std::max(room - width - 2, 0))));
  std::fflush(stderr);
}

}  // namespace espalier
