#include "control/transition_text.h"

#include <fmt/format.h>

#include "base/bytes.h"

namespace espalier {

namespace {

std::string Blocks(int n) { return fmt::format("{} block{}", n, n == 1 ? "" : "s"); }

}  // namespace

std::string DescribeTransition(const TransitionEvent& event) {
  std::string text;
  switch (event.reason) {
    case TransitionEvent::Reason::kBudget:
    case TransitionEvent::Reason::kWorkload: {
      const bool released = event.moved.n_released > 0;
      text = event.reason == TransitionEvent::Reason::kBudget
                 ? fmt::format("budget {}: ", FormatBytes(event.limit_bytes))
                 : "room for requests: ";
      if (released) {
        text += fmt::format("released {}, {} in {:.1f} ms", Blocks(event.moved.n_released),
                            FormatBytes(event.moved.released_bytes), event.ms);
      }
      if (!event.pending.empty()) {
        text += fmt::format("{}{} may return", released ? "; " : "", Blocks(static_cast<int>(event.pending.size())));
      } else if (!released) {
        text += "no change";
      }
      break;
    }
    case TransitionEvent::Reason::kLoad:
      text += fmt::format("loaded {}, {} in {:.1f} ms", Blocks(event.moved.n_loaded),
                          FormatBytes(event.moved.loaded_bytes), event.ms);
      break;
    case TransitionEvent::Reason::kReprefill:
      text += fmt::format("attention is back: prefilled again in {:.1f} ms", event.ms);
      break;
  }
  return text;
}

std::string ChangedBlocks(const TransitionEvent& event) {
  std::string names;
  for (int b = 0; b < event.plan_after.n_block(); ++b) {
    if (event.plan_after.kept({b}) != event.plan_before.kept({b})) {
      names += " " + BlockName({b});
    }
  }
  return names;
}

}  // namespace espalier
