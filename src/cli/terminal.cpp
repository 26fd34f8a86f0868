#include "cli/terminal.h"

#include <fmt/format.h>
#include <langinfo.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <clocale>
#include <cstdlib>

#include "cli/standard_streams.h"
#include "model/quote.h"

namespace espalier {
namespace {

std::string_view Environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

// Bytes of the UTF-8 sequence that begins with `lead`; 0 if none does.
size_t SequenceLength(unsigned char lead) {
  return lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
}

bool IsContinuation(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

}  // namespace

void Warn(const std::string& text) { fmt::print(stderr, "espalier: warning: {}\n", Printable(text, 4096)); }

Terminal QueryTerminal(std::FILE* stream) {
  Terminal terminal;
  const int fd = DescriptorOf(stream);
  const std::string_view term = Environment("TERM");
  terminal.is_terminal = ::isatty(fd) == 1 && term != "dumb" && !term.empty();
  winsize size = {};
  if (::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0) {
    terminal.width = size.ws_col;
    terminal.height = size.ws_row;
  }
  terminal.colour = terminal.is_terminal && Environment("NO_COLOR").empty();
  std::setlocale(LC_CTYPE, "");
  terminal.utf8 = std::string_view(::nl_langinfo(CODESET)) == "UTF-8";
  return terminal;
}

std::string TerminalText::Add(std::string_view piece) {
  const std::string text = unfinished_ + std::string(piece);
  unfinished_.clear();
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t length = SequenceLength(lead);
    size_t have = 1;
    while (have < length && i + have < text.size() && IsContinuation(text[i + have])) {
      ++have;
    }
    if (have < length && i + have == text.size()) {
      unfinished_ = text.substr(i);
      break;
    }
    const bool control = (lead < 0x20 && lead != '\n' && lead != '\t') || lead == 0x7f ||
                         (lead == 0xc2 && have == 2 && static_cast<unsigned char>(text[i + 1]) < 0xa0);
    if (length == 0 || have < length) {
      out += "\xef\xbf\xbd";
    } else if (!control) {
      out.append(text, i, length);
    }
    i += have;
  }
  return out;
}

}  // namespace espalier
