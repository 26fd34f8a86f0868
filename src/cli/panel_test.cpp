#include "cli/panel.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

constexpr Terminal kPlain = {.is_terminal = true, .width = 80, .height = 24, .colour = false, .utf8 = false};

PanelState SomeState(int n_layer) {
  PanelState state;
  state.title = "reference F16";
  state.plan = Plan::Dense(n_layer);
  state.generated_tokens = 57;
  state.max_tokens = 128;
  state.tokens_per_second = 312.4;
  state.budget_bytes = 41 << 20;
  state.budget_percent = 60;
  state.process_bytes = 22 << 20;
  state.managed_bytes = 18 << 20;
  state.predicted_bytes = 18 << 20;
  state.kernel_bytes = 19 << 20;
  return state;
}

TEST(RenderPanel, ShowsKeptDroppedAndLoadingBlocks) {
  PanelState state = SomeState(6);
  state.plan.Drop(BlockId::Attention(2));
  state.plan.Drop(BlockId::Attention(3));
  state.plan.Drop(BlockId::Ffn(5));
  state.pending = {BlockId::Attention(3)};
  const auto lines = RenderPanel(state, kPlain);
  ASSERT_EQ(lines.size(), static_cast<size_t>(kPanelLines));
  EXPECT_EQ(lines[1], " attention ##.+##  9 of 12 blocks");
  EXPECT_EQ(lines[2], " ffn       #####.  # kept  . dropped  + loading");
}

TEST(RenderPanel, ShowsBudgetUseSpeedAndPrediction) {
  const auto lines = RenderPanel(SomeState(6), kPlain);
  EXPECT_NE(lines[0].find("token 57/128  312.4 tok/s"), std::string::npos) << lines[0];
  EXPECT_NE(lines[3].find("40.0 MiB of 41.0 MiB (60%)"), std::string::npos) << lines[3];
  EXPECT_NE(lines[4].find("predicted 18.0 MiB  held 18.0 MiB  kernel 19.0 MiB"), std::string::npos) << lines[4];
}

TEST(RenderPanel, NoLineIsWiderThanTheTerminal) {
  PanelState state = SomeState(100);
  state.last_event = std::string(500, 'x');
  for (const int width : {40, 41, 79, 80, 200}) {
    Terminal terminal = kPlain;
    terminal.width = width;
    for (const std::string& line : RenderPanel(state, terminal)) {
      EXPECT_LE(line.size(), static_cast<size_t>(width)) << line;
    }
  }
}

TEST(RenderPanel, AColumnOfManyLayersShowsWhatIsMissing) {
  PanelState state = SomeState(100);
  state.plan.Drop(BlockId::Ffn(99));
  const auto lines = RenderPanel(state, kPlain);
  EXPECT_EQ(std::count(lines[2].begin(), lines[2].end(), '#'), 49 + 1) << "two layers a column, and the legend";
  EXPECT_NE(lines[2].find("#.  # kept"), std::string::npos) << lines[2];
}

TEST(RenderPanel, HasEscapeSequencesOnlyWithColour) {
  for (const bool colour : {false, true}) {
    Terminal terminal = kPlain;
    terminal.colour = colour;
    for (const std::string& line : RenderPanel(SomeState(6), terminal)) {
      EXPECT_EQ(line.find('\x1b') != std::string::npos, colour);
    }
  }
}

TEST(TerminalText, HoldsHalfACharacterBack) {
  TerminalText text;
  EXPECT_EQ(text.Add("a\xe2\x82"), "a");
  EXPECT_EQ(text.Add("\xac"
                     "b"),
            "\xe2\x82\xac"
            "b");
}

TEST(TerminalText, LeavesControlCharactersOut) {
  TerminalText text;
  EXPECT_EQ(text.Add("a\x1b[2Jb\r\x07\tc\n\x7f"), "a[2Jb\tc\n");
  EXPECT_EQ(text.Add("\xc2\x9b"
                     "31m"),
            "31m")
      << "C1 control: a CSI in one character";
}

TEST(TerminalText, MarksBytesThatAreNoCharacter) {
  TerminalText text;
  EXPECT_EQ(text.Add("a\xff"
                     "b\xe2x"),
            "a\xef\xbf\xbd"
            "b\xef\xbf\xbdx");
}

}  // namespace
}  // namespace espalier
