// Bytes that do not add up, as those of an exported file do not.
#pragma once

#include <cstdint>

#include "model/plan.h"
#include "strategy/fit_bytes.h"

namespace espalier::test {

// Blocks of different sizes, an attention block and the FFN block that comes next are a layer, a
// half that is alone takes a placeholder, one anywhere takes other metadata, and no block at all is no file.
// Placeholders take more than the smallest blocks, so that dropping one may take more bytes.
inline uint64_t FileBytes(const Plan& plan) {
  uint64_t sum = 1000;
  int lone = 0;
  bool open = false;  // an attention block that waits for its FFN block
  bool any = false;
  for (int b = 0; b < plan.n_block(); ++b) {
    if (!plan.kept({b})) {
      continue;
    }
    any = true;
    const bool attention = BlockId{b}.is_attention();
    sum += attention ? 40 + static_cast<uint64_t>(b) : 90 + 3 * static_cast<uint64_t>(b);
    lone += attention == open ? 1 : 0;  // an attention block before an attention block, or an FFN block alone
    open = attention;
  }
  lone += open ? 1 : 0;
  return any ? sum + (lone > 0 ? 13 : 0) + 60 * static_cast<uint64_t>(lone) : kNoSuchPlan;
}

}  // namespace espalier::test
