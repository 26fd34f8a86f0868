// The live panel: the blocks as a picture, the budget and the bytes, a few lines at the bottom of the terminal.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cli/terminal.h"
#include "model/plan.h"

namespace espalier {

struct PanelState {
  std::string title;             // model
  Plan plan;                     // resident
  std::vector<BlockId> pending;  // still to be loaded
  int64_t generated_tokens = 0;
  int64_t max_tokens = 0;
  double tokens_per_second = 0;
  uint64_t budget_bytes = 0;  // on managed + process bytes; 0: none
  double budget_percent = 0;  // of the dense managed peak
  uint64_t process_bytes = 0;
  uint64_t predicted_bytes = 0;  // managed
  uint64_t managed_bytes = 0;
  uint64_t kernel_bytes = 0;  // managed, as the kernel counts it
  std::string last_event;
};

// One line each, without line ends, at most `terminal.width` columns wide; always kPanelLines of them.
inline constexpr int kPanelLines = 6;
std::vector<std::string> RenderPanel(const PanelState& state, const Terminal& terminal);

// Keeps the panel on the last lines of the screen (stdout) while text scrolls above it in a scroll region. Follows
// changes of the terminal's size. The cursor is always where the text goes on. Lines are broken here and not by the
// terminal: after the last column a terminal only remembers to wrap, and not all (tmux) keep that in mind when the
// cursor goes to the panel and back.
class LivePanel {
 public:
  LivePanel() = default;
  ~LivePanel() { Finish(); }
  LivePanel(const LivePanel&) = delete;
  LivePanel& operator=(const LivePanel&) = delete;

  // False where the terminal is too small or is none: nothing else does anything then.
  bool Start();
  // Text at the cursor. REQUIRES: whole UTF-8 characters, no control characters but line feed and tab.
  void Write(std::string_view text);
  // The same, dimmed where there is colour.
  void WriteDim(std::string_view text);
  void Draw(const PanelState& state);
  // Gives the screen back, and leaves the panel as it was drawn last under the text. No-op the second time.
  void Finish();

 private:
  void ReserveRoom();
  void Flush();
  void AppendCharacter(std::string_view utf8);

  bool active_ = false;
  Terminal terminal_;
  int column_ = 0;  // of the cursor
  std::vector<std::string> lines_;
  std::string out_;  // written at once, so that nothing flickers
};

}  // namespace espalier
