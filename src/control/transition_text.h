// Transitions in words, for logs and displays.
#pragma once

#include <string>

#include "control/controller.h"

namespace espalier {

// "budget 41.2 MiB: released 2 blocks, 1.3 MiB in 0.4 ms".
std::string DescribeTransition(const TransitionEvent& event);
// " a3 f3 a7": the blocks that left or came back, each after a space.
std::string ChangedBlocks(const TransitionEvent& event);

}  // namespace espalier
