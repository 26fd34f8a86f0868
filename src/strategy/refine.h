// Plans made better without measuring anything: by exchanging blocks, as the surrogate sees it.
#pragma once

#include <cstdint>
#include <span>

#include "model/plan.h"
#include "strategy/fit_bytes.h"
#include "surrogate/loss_surrogate.h"

namespace espalier {

// From `plan` to plans that the surrogate expects to lose less, steepest first, until no exchange helps. An exchange
// restores a dropped block and drops a kept one; what is too large then parts with further blocks by `order`, and what
// leaves room takes back what fits (GiveBackUpTo). At most `most_steps` of them, some hundred plans looked at in each.
// StratNet answers for all budgets at once, and a fraction next to a half falls to one side or the other by little:
// here the answer is held against its neighbours at this very budget.
// REQUIRES: the plan takes at most max_bytes; `order` has every block once
Plan Refine(const LossSurrogate& surrogate, const PlanBytes& bytes, uint64_t max_bytes, std::span<const BlockId> order,
            Plan plan, int most_steps = 8);

}  // namespace espalier
