// What StratNet is up against: searches that begin anew for every request, as they are published, and one chain that
// answers all requests.
//
// A request is a limit in bytes, whatever they count (fit_bytes.h). No search leaves room for a dropped block. What a
// search costs is counted as if no other had been: a plan, or some windows of one, that the evaluator recalls from its
// archive takes no time, and is counted all the same. So figures of several requests add up to those of separate
// searches, in whatever order they run.
#pragma once

#include <cstdint>
#include <span>

#include "base/status.h"
#include "eval/plan_evaluator.h"
#include "model/plan.h"
#include "strategy/fit_bytes.h"

namespace espalier {

struct SearchedPlan {
  Plan plan;
  double loss = 0;  // nats per token, measured; 0 for the dense plan, by definition
  // Plans measured whole that this request alone would have taken: each plan once, a part of the windows as that share
  // of one, the dense plan none.
  double evaluations = 0;
};

// All of them: kOutOfBudget, before anything is measured, where DropUntilItTakes says so; what the evaluator returns
// where it fails (kAborted where it was stopped).

// Greedy Sequential Importance as RAP (arXiv 2505.17138) and BlockPruner (arXiv 2406.10594) search: in each round every
// block that is left is taken away, and the one goes whose removal hurts least, until the plan fits; then the largest
// blocks that still fit come back. Counted as the published loop works, which measures every candidate of every round
// whole. Time is that of a faster search with the same outcome (importance/best_first.h).
// `known`: the order of RankByGsi by the same evaluator, where it was made before: its rounds are counted, not run.
Result<SearchedPlan> SearchByGsi(PlanEvaluator* evaluator, const PlanBytes& bytes, uint64_t max_bytes,
                                 std::span<const BlockId> known = {});
// The same search for a limit on the loss, in nats per token: until dropping the next block would pass it. The round
// that finds that out counts too.
Result<SearchedPlan> SearchByGsiWithin(PlanEvaluator* evaluator, double max_loss, std::span<const BlockId> known = {});

// With these a search of 32 blocks takes 150 to 250 evaluations, of 64 blocks 400 to 500, and asks for the bytes of
// some 20 000 plans (64 blocks: more). With fewer than 8 windows the steps of selection save less: with one, every
// offspring is an evaluation.
//
// Searches have converged by then. Of 12 blocks, all of whose plans were measured, the best plan is found at each of 14
// limits by each of 20 seeds. Of the 32-block reference model, twice as many generations find nothing better at 75 % of
// the bytes, and gain 1 % at 60 %. On made-up losses, of 32 blocks that depend on their neighbours, the end is 1 to 2 %
// (64 blocks: 1 to 4 %) above the best plan that any of many longer searches finds, at worst 13 %, and twice as many
// generations gain at most 2 %. EvoPress takes k (n - k) / 1.5 generations of 32 offspring where k of n layers go: 5120
// plans at 12 of 32 layers where we look at 2048, each on less of its text.
struct EvolutionOptions {
  int generations = 0;   // at most: fewer where no offspring is new any more. 0: two for each block of the model
  int offspring = 16;    // of each generation
  int first_plans = 32;  // at random; the best is the first parent
  uint64_t seed = 1;
};

// Evolutionary search as EvoPress (arXiv 2410.14649) does it, with loss for fitness: one parent; offspring that drop
// some kept blocks and restore as many dropped ones, min(rand{1..3}, rand{1..3}) of them; selection in steps, on an
// eighth, a half and all of the windows; the parent stays unless the best of its offspring loses less. EvoPress
// switches blocks of one kind only. Here any two, and what is too large then, or leaves room, is mended with blocks at
// random, so that both kinds find their share of the bytes. The same plan wherever options and losses are the same.
Result<SearchedPlan> SearchByEvolution(PlanEvaluator* evaluator, const PlanBytes& bytes, uint64_t max_bytes,
                                       const EvolutionOptions& options = {});

// The rival that is amortised as StratNet is: one chain (importance/gsi.h, density.h) answers any number of requests by
// dropping in its order. `evaluations` are those of this answer alone: none for a plan on the chain, which was measured
// as it came about, one where blocks came back.
// REQUIRES: `order` has every block once
Result<SearchedPlan> AnswerFromChain(PlanEvaluator* evaluator, std::span<const BlockId> order, const PlanBytes& bytes,
                                     uint64_t max_bytes);
// What a chain itself costs, once, counted as above.
constexpr double ChainEvaluations(int n_block) { return 0.5 * n_block * (n_block + 1); }

}  // namespace espalier
