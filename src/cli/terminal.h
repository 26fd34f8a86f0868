// What the terminal behind a stream can show, and what is told on it.
#pragma once

#include <cstdio>
#include <string>
#include <string_view>

namespace espalier {

struct Terminal {
  bool is_terminal = false;  // and not TERM=dumb
  int width = 80;
  int height = 24;
  bool colour = false;  // a terminal, and NO_COLOR is unset or empty (no-color.org)
  bool utf8 = false;
};
Terminal QueryTerminal(std::FILE* stream);

// One line on stderr, whatever is in `text`.
void Warn(const std::string& text);

// Makes a stream of token pieces fit for a terminal: holds an unfinished UTF-8 sequence back until it is whole, and
// leaves out control characters except for line feed and tab, so that a model cannot send escape sequences.
class TerminalText {
 public:
  // The text that can be shown now.
  std::string Add(std::string_view piece);

 private:
  std::string unfinished_;
};

}  // namespace espalier
