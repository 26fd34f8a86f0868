// Who watches a generation on the command line.
#pragma once

#include <memory>
#include <string>

#include "cli/placement.h"
#include "control/generation.h"

namespace espalier {

struct RunDisplayOptions {
  bool json = false;  // stdout belongs to the report
  bool no_panel = false;
  double max_tokens_per_second = 0;  // 0: as fast as it goes; else text comes at a pace that can be watched
  std::string title;
  std::string prompt;  // shown before the text by the panel
};

class RunDisplay : public GenerationObserver {
 public:
  // A panel where stdout is a terminal; else text on stdout and one line for each transition on stderr. Collects what
  // a report needs in both cases. `placement` must outlive it.
  static std::unique_ptr<RunDisplay> Create(const Placement& placement, const RunDisplayOptions& options);
  // Ends the display before the statistics, or an error, are printed.
  virtual void Finish() = 0;

  const std::string& text() const { return text_; }
  const std::vector<TransitionEvent>& transitions() const { return transitions_; }

 protected:
  std::string text_;
  std::vector<TransitionEvent> transitions_;
};

// "token 48: budget 41.2 MiB: released 2 blocks, 1.3 MiB in 0.4 ms".
std::string DescribeAtToken(const TransitionEvent& event);
// With the blocks, the managed bytes before and after, and the predicted loss where the policy knows one.
std::string DescribeTransitionInFull(const TransitionEvent& event);

}  // namespace espalier
