// From an order of blocks to a plan of so many bytes, whatever is counted: those of the file that is written, or a
// footprint. policy.h does the same for an observation, whose bytes add up.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <span>

#include "base/status.h"
#include "model/plan.h"

namespace espalier {

// Bytes of a plan; kNoSuchPlan for one that may not be (a file without any block). Dropping a block takes fewer, but
// for a few hundred bytes: an exported file pairs blocks up to layers, and a half that is alone takes a placeholder. So
// bytes need not add up, and are asked for whenever a plan has to be held to a limit.
using PlanBytes = std::function<uint64_t(const Plan&)>;
inline constexpr uint64_t kNoSuchPlan = std::numeric_limits<uint64_t>::max();

// Drops blocks in `order` until the plan takes at most max_bytes, then gives back what fits (below). A block without
// which there is no plan stays, or else, if only that makes it fit, another in its place, the last in the order.
// kOutOfBudget, naming the least bytes reachable, if nothing fits. The plans asked for are about the blocks dropped,
// and for each block given back as many again.
// REQUIRES: `order` has every block once
Result<Plan> DropUntilItTakes(const PlanBytes& bytes, uint64_t max_bytes, std::span<const BlockId> order);

// Its halves, for plans that come from elsewhere.

// Drops kept blocks in `order` until the plan takes at most max_bytes. A block without which there is no plan stays.
// The bytes of the plan then: above max_bytes where nothing is left to drop.
uint64_t DropDownTo(const PlanBytes& bytes, uint64_t max_bytes, std::span<const BlockId> order, Plan* plan);

// Restores, one after the other, the dropped block that takes the plan nearest to max_bytes, of equal ones the last in
// the order, until none fits any more: whole blocks, kept or dropped.
// REQUIRES: `order` has every block once, and the plan takes at most max_bytes
void GiveBackUpTo(const PlanBytes& bytes, uint64_t max_bytes, std::span<const BlockId> order, Plan* plan);

// Least bytes of the plan with one of its dropped blocks back; kNoSuchPlan if all are kept. Above a limit: the plan
// leaves no room.
uint64_t BytesWithOneMore(const PlanBytes& bytes, const Plan& plan);

}  // namespace espalier
