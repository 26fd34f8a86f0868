#include "cli/panel.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cwchar>

#include "base/bytes.h"

namespace espalier {
namespace {

enum class BlockState { kKept, kLoading, kDropped };

constexpr int kLabelWidth = 11;

// Text whose escape sequences and UTF-8 do not count as columns.
class Line {
 public:
  explicit Line(const Terminal& terminal) : terminal_(terminal) {}

  // `utf8` where the terminal can show it, else `ascii`; as many columns as `columns`.
  void Glyph(std::string_view utf8, std::string_view ascii, int columns = 1) {
    if (width_ + columns <= terminal_.width) {
      text_ += terminal_.utf8 ? utf8 : ascii;
      width_ += columns;
    }
  }
  // ASCII only; cut at the terminal's edge.
  void Text(std::string_view text) {
    const auto room = static_cast<size_t>(std::max(terminal_.width - width_, 0));
    text = text.substr(0, room);
    text_ += text;
    width_ += static_cast<int>(text.size());
  }
  void Colour(std::string_view code) {
    if (terminal_.colour) {
      text_ += fmt::format("\x1b[{}m", code);
    }
  }
  void Pad(int column) { Text(std::string(static_cast<size_t>(std::max(column - width_, 0)), ' ')); }
  int width() const { return width_; }
  std::string Take() {
    Colour("0");
    return std::move(text_);
  }

 private:
  const Terminal& terminal_;
  std::string text_;
  int width_ = 0;
};

BlockState StateOf(const PanelState& state, BlockId block) {
  if (state.plan.kept(block)) {
    return BlockState::kKept;
  }
  const bool loading = std::find(state.pending.begin(), state.pending.end(), block) != state.pending.end();
  return loading ? BlockState::kLoading : BlockState::kDropped;
}

void DrawBlock(Line& line, BlockState state) {
  switch (state) {
    case BlockState::kKept:
      line.Colour("32");
      line.Glyph("\u25a0", "#");
      break;
    case BlockState::kLoading:
      line.Colour("33");
      line.Glyph("\u25a8", "+");
      break;
    case BlockState::kDropped:
      line.Colour("31");
      line.Glyph("\u00b7", ".");
      break;
  }
  line.Colour("0");
}

std::string BlockRow(const PanelState& state, const Terminal& terminal, BlockKind kind) {
  Line line(terminal);
  line.Text(kind == BlockKind::kAttention ? " attention" : " ffn");
  line.Pad(kLabelWidth);
  const int n_layer = state.plan.n_layer();
  // Where there are more layers than columns, a column stands for several and shows the one that lacks most.
  const int room = std::max(terminal.width - kLabelWidth - 1, 1);
  const int layers_per_column = (n_layer + room - 1) / room;
  for (int first = 0; first < n_layer; first += layers_per_column) {
    BlockState worst = BlockState::kKept;
    for (int il = first; il < std::min(first + layers_per_column, n_layer); ++il) {
      worst = std::max(worst, StateOf(state, {2 * il + static_cast<int>(kind)}));
    }
    DrawBlock(line, worst);
  }
  if (kind == BlockKind::kAttention) {
    const int kept = state.plan.kept_attention() + state.plan.kept_ffn();
    line.Text(fmt::format("  {} of {} blocks", kept, state.plan.n_block()));
  } else {
    for (const auto& [block, name] : {std::pair(BlockState::kKept, "kept"), std::pair(BlockState::kDropped, "dropped"),
                                      std::pair(BlockState::kLoading, "loading")}) {
      if (line.width() + 12 <= terminal.width) {
        line.Text("  ");
        DrawBlock(line, block);
        line.Text(fmt::format(" {}", name));
      }
    }
  }
  return line.Take();
}

std::string TitleLine(const PanelState& state, const Terminal& terminal) {
  const std::string left = fmt::format(" {} ", state.title);
  const std::string right =
      fmt::format(" token {}/{}  {:.1f} tok/s ", state.generated_tokens, state.max_tokens, state.tokens_per_second);
  Line line(terminal);
  line.Colour("2");
  line.Glyph("\u2500\u2500", "--", 2);
  line.Colour("0;1");
  line.Text(left);
  line.Colour("0;2");
  const int fill = terminal.width - line.width() - static_cast<int>(right.size()) - 2;
  for (int i = 0; i < fill; ++i) {
    line.Glyph("\u2500", "-");
  }
  line.Colour("0;1");
  line.Text(right);
  line.Colour("0;2");
  line.Glyph("\u2500\u2500", "--", 2);
  return line.Take();
}

std::string BudgetLine(const PanelState& state, const Terminal& terminal) {
  constexpr int kBar = 20;
  const uint64_t used = state.managed_bytes + state.process_bytes;
  Line line(terminal);
  line.Text(" budget");
  line.Pad(kLabelWidth);
  if (state.budget_bytes == 0) {
    line.Text(fmt::format("none; {} in use", FormatBytes(used)));
    return line.Take();
  }
  const double share = static_cast<double>(used) / static_cast<double>(state.budget_bytes);
  const int filled = std::clamp(static_cast<int>(share * kBar + 0.5), 0, kBar);
  line.Colour(share <= 1 ? "36" : "31");
  for (int i = 0; i < kBar; ++i) {
    i < filled ? line.Glyph("\u2588", "=") : line.Glyph("\u2591", "-");
  }
  line.Colour("0");
  line.Text(fmt::format("  {} of {}", FormatBytes(used), FormatBytes(state.budget_bytes)));
  if (state.budget_percent > 0) {
    line.Text(fmt::format(" ({:.0f}%)", state.budget_percent));
  }
  return line.Take();
}

std::string PlainLine(const Terminal& terminal, std::string_view label, std::string_view text) {
  Line line(terminal);
  line.Text(label);
  line.Pad(kLabelWidth);
  line.Text(text);
  return line.Take();
}

}  // namespace

std::vector<std::string> RenderPanel(const PanelState& state, const Terminal& terminal) {
  return {TitleLine(state, terminal),
          BlockRow(state, terminal, BlockKind::kAttention),
          BlockRow(state, terminal, BlockKind::kFfn),
          BudgetLine(state, terminal),
          PlainLine(terminal, " managed",
                    fmt::format("predicted {}  held {}  kernel {}", FormatBytes(state.predicted_bytes),
                                FormatBytes(state.managed_bytes), FormatBytes(state.kernel_bytes))),
          PlainLine(terminal, " last", state.last_event.empty() ? "no change of memory yet" : state.last_event)};
}

bool LivePanel::Start() {
  terminal_ = QueryTerminal(stdout);
  if (!terminal_.is_terminal || terminal_.width < 40 || terminal_.height < kPanelLines + 4) {
    return false;
  }
  active_ = true;
  ReserveRoom();
  Flush();
  return true;
}

void LivePanel::ReserveRoom() {
  // Index (ESC D) scrolls where the cursor is near the bottom and keeps its column. Setting the scroll region moves
  // the cursor, hence save (ESC 7) and restore (ESC 8).
  for (int i = 0; i < kPanelLines; ++i) {
    out_ +=
        "\x1b"
        "D";
  }
  fmt::format_to(std::back_inserter(out_),
                 "\x1b[{}A\x1b"
                 "7\x1b[1;{}r\x1b"
                 "8",
                 kPanelLines, terminal_.height - kPanelLines);
}

void LivePanel::Write(std::string_view text) {
  if (!active_) {
    return;
  }
  while (!text.empty()) {
    size_t length = 1;
    while (length < text.size() && (static_cast<unsigned char>(text[length]) & 0xc0) == 0x80) {
      ++length;
    }
    AppendCharacter(text.substr(0, length));
    text.remove_prefix(length);
  }
  Flush();
}

void LivePanel::WriteDim(std::string_view text) {
  out_ += terminal_.colour ? "\x1b[2m" : "";
  Write(text);
  out_ += terminal_.colour ? "\x1b[0m" : "";
}

void LivePanel::AppendCharacter(std::string_view utf8) {
  if (utf8 == "\n") {
    out_ += "\r\n";
    column_ = 0;
    return;
  }
  if (utf8 == "\t") {
    const int spaces = 8 - column_ % 8;
    for (int i = 0; i < spaces; ++i) {
      AppendCharacter(" ");
    }
    return;
  }
  wchar_t wide = 0;
  std::mbstate_t state = {};
  const size_t read = std::mbrtowc(&wide, utf8.data(), utf8.size(), &state);
  const int columns = read == utf8.size() ? std::max(::wcwidth(wide), 0) : 1;
  if (column_ + columns > terminal_.width) {
    out_ += "\r\n";
    column_ = 0;
  }
  out_ += utf8;
  column_ += columns;
}

void LivePanel::Draw(const PanelState& state) {
  if (!active_) {
    return;
  }
  const Terminal now = QueryTerminal(stdout);
  if (now.width != terminal_.width || now.height != terminal_.height) {
    terminal_ = now;
    column_ %= now.width;  // where the terminal has wrapped the line that it was in
    out_ +=
        "\x1b"
        "7\x1b[r\x1b"
        "8\x1b[J";
    ReserveRoom();
  }
  lines_ = RenderPanel(state, terminal_);
  out_ +=
      "\x1b"
      "7\x1b[?25l";
  for (int i = 0; i < kPanelLines; ++i) {
    fmt::format_to(std::back_inserter(out_), "\x1b[{};1H\x1b[2K{}", terminal_.height - kPanelLines + 1 + i,
                   lines_[static_cast<size_t>(i)]);
  }
  out_ +=
      "\x1b"
      "8\x1b[?25h";
  Flush();
}

void LivePanel::Finish() {
  if (!active_) {
    return;
  }
  active_ = false;
  out_ +=
      "\x1b"
      "7\x1b[r\x1b"
      "8\x1b[J\n";
  for (const std::string& line : lines_) {
    out_ += line + "\n";
  }
  Flush();
}

void LivePanel::Flush() {
  std::fwrite(out_.data(), 1, out_.size(), stdout);
  std::fflush(stdout);
  out_.clear();
}

}  // namespace espalier
