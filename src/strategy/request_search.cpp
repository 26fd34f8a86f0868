#include "strategy/request_search.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "importance/candidates.h"
#include "importance/gsi.h"
#include "importance/race.h"

namespace espalier {
namespace {

std::vector<BlockId> AllBlocks(int n_block) {
  std::vector<BlockId> blocks;
  for (int b = 0; b < n_block; ++b) {
    blocks.push_back({b});
  }
  return blocks;
}

// What one request measures, and what that would have cost without an archive.
class Account {
 public:
  explicit Account(PlanEvaluator* evaluator) : evaluator_(evaluator) {}

  // The first `windows` windows of a plan other than the dense one.
  void Count(const Plan& plan, int64_t windows) {
    int64_t& counted = counted_[plan.ToText()];
    windows_ += std::max<int64_t>(windows - counted, 0);
    counted = std::max(counted, windows);
  }
  // Sum of KL over the first windows, counted.
  Result<double> MeasureFirst(const Plan& plan, int64_t windows) {
    Count(plan, windows);
    return espalier::MeasureFirst(evaluator_, plan, windows);
  }
  bool CountedWhole(const Plan& plan) const {
    const auto found = counted_.find(plan.ToText());
    return found != counted_.end() && found->second == evaluator_->n_windows();
  }

  // The answer: its loss measured, and counted where it was not before.
  Result<SearchedPlan> Close(Plan plan) {
    SearchedPlan answer;
    if (!plan.dense()) {
      Count(plan, evaluator_->n_windows());
      ESPALIER_ASSIGN_OR_RETURN(answer.loss, evaluator_->Measure(plan));
    }
    answer.plan = std::move(plan);
    answer.evaluations = static_cast<double>(windows_) / static_cast<double>(evaluator_->n_windows());
    return answer;
  }

 private:
  PlanEvaluator* evaluator_;
  std::map<std::string, int64_t> counted_;  // windows, by plan
  int64_t windows_ = 0;
};

// EvoPress' search for one request.
class Evolution {
 public:
  Evolution(PlanEvaluator* evaluator, const PlanBytes& bytes, uint64_t max_bytes, const EvolutionOptions& options)
      : bytes_(bytes),
        max_bytes_(max_bytes),
        options_(options),
        all_windows_(evaluator->n_windows()),
        blocks_(AllBlocks(evaluator->model().n_block())),
        account_(evaluator),
        random_(options.seed) {}

  Result<SearchedPlan> Run();

 private:
  struct Step {
    int64_t part;      // of the windows: one in so many
    size_t survivors;  // that go on
  };

  // EvoPress takes 1/64 of its text for all offspring, and 1/4 for the best two and the parent, both drawn anew each
  // time. Windows are measured in their order here, so that the first ones always come first: more of them, and all for
  // the last word.
  static constexpr Step kFirst = {8, 1};
  static constexpr Step kSteps[] = {{8, 4}, {2, 1}, {1, 1}};
  // Where a small model or a limit next to the dense model's bytes has few plans, most of them are known soon.
  static constexpr int kTriesPerOffspring = 20;

  size_t RandomBelow(size_t n) { return random_() % n; }
  void Shuffle();
  bool Mend(Plan* plan);
  std::vector<Plan> Offspring(const Plan& parent);
  // Leaves the best in `plans`, the best first; the sum of its KL over the step's windows.
  Result<double> Select(const Step& step, std::vector<Plan>* plans);

  const PlanBytes& bytes_;
  uint64_t max_bytes_;
  EvolutionOptions options_;
  int64_t all_windows_;
  std::vector<BlockId> blocks_;  // in an order that is shuffled again and again
  Account account_;
  std::mt19937_64 random_;
};

void Evolution::Shuffle() {
  for (size_t i = blocks_.size(); i > 1; --i) {
    std::swap(blocks_[i - 1], blocks_[RandomBelow(i)]);
  }
}

// Drops blocks until the plan fits, and restores dropped ones until none fits any more, all at random. False if it
// cannot be made to fit.
bool Evolution::Mend(Plan* plan) {
  Shuffle();
  if (DropDownTo(bytes_, max_bytes_, blocks_, plan) > max_bytes_) {
    return false;
  }
  Shuffle();
  bool restored = true;
  while (restored) {  // once more than blocks add up: a file's do not quite
    restored = false;
    for (const BlockId block : blocks_) {
      if (!plan->kept(block)) {
        plan->Restore(block);
        if (bytes_(*plan) <= max_bytes_) {
          restored = true;
        } else {
          plan->Drop(block);
        }
      }
    }
  }
  return true;
}

std::vector<Plan> Evolution::Offspring(const Plan& parent) {
  std::vector<Plan> offspring;
  const auto wanted = static_cast<size_t>(options_.offspring);
  for (int i = 0; i < options_.offspring * kTriesPerOffspring && offspring.size() < wanted; ++i) {
    Plan plan = parent;
    const size_t switches = 1 + std::min(RandomBelow(3), RandomBelow(3));
    Shuffle();
    size_t dropped = 0, restored = 0;
    for (const BlockId block : blocks_) {
      if (parent.kept(block) && dropped < switches) {
        plan.Drop(block);
        ++dropped;
      } else if (!parent.kept(block) && restored < switches) {
        plan.Restore(block);
        ++restored;
      }
    }
    // What was measured whole has lost against a parent already.
    if (Mend(&plan) && !account_.CountedWhole(plan) &&
        std::find(offspring.begin(), offspring.end(), plan) == offspring.end()) {
      offspring.push_back(std::move(plan));
    }
  }
  return offspring;
}

Result<double> Evolution::Select(const Step& step, std::vector<Plan>* plans) {
  std::vector<double> kl;
  for (const Plan& plan : *plans) {
    ESPALIER_ASSIGN_OR_RETURN(const double sum,
                              account_.MeasureFirst(plan, (all_windows_ + step.part - 1) / step.part));
    kl.push_back(sum);
  }
  std::vector<size_t> order(kl.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&kl](size_t a, size_t b) { return kl[a] < kl[b]; });
  order.resize(std::min(order.size(), step.survivors));
  std::vector<Plan> survivors;
  for (const size_t i : order) {
    survivors.push_back(std::move((*plans)[i]));
  }
  *plans = std::move(survivors);
  return kl[order.front()];
}

Result<SearchedPlan> Evolution::Run() {
  std::vector<Plan> plans;
  for (int i = 0; i < options_.first_plans || plans.empty(); ++i) {
    Shuffle();
    ESPALIER_ASSIGN_OR_RETURN(Plan plan, DropUntilItTakes(bytes_, max_bytes_, blocks_));
    if (plan.dense()) {
      return account_.Close(std::move(plan));
    }
    if (std::find(plans.begin(), plans.end(), plan) == plans.end()) {
      plans.push_back(std::move(plan));
    }
  }
  ESPALIER_RETURN_IF_ERROR(Select(kFirst, &plans).status());
  Plan parent = std::move(plans.front());
  ESPALIER_ASSIGN_OR_RETURN(double parent_kl, account_.MeasureFirst(parent, all_windows_));
  const int generations = options_.generations > 0 ? options_.generations : 2 * static_cast<int>(blocks_.size());
  for (int generation = 0; generation < generations; ++generation) {
    plans = Offspring(parent);
    if (plans.empty()) {
      break;
    }
    double kl = 0;
    for (const Step& step : kSteps) {
      ESPALIER_ASSIGN_OR_RETURN(kl, Select(step, &plans));
    }
    if (kl < parent_kl) {
      parent = std::move(plans.front());
      parent_kl = kl;
    }
  }
  return account_.Close(std::move(parent));
}

// A round of GSI, and all of its candidates counted.
Result<LeastLoss> CountedRound(PlanEvaluator* evaluator, const Plan& base, std::span<const Plan> candidates,
                               std::span<const BlockId> known, Account* account) {
  for (const Plan& plan : candidates) {
    account->Count(plan, evaluator->n_windows());
  }
  return GsiRound(evaluator, base, candidates, known);
}

}  // namespace

Result<SearchedPlan> SearchByGsi(PlanEvaluator* evaluator, const PlanBytes& bytes, uint64_t max_bytes,
                                 std::span<const BlockId> known) {
  std::vector<BlockId> order = AllBlocks(evaluator->model().n_block());
  ESPALIER_RETURN_IF_ERROR(DropUntilItTakes(bytes, max_bytes, order).status());
  Account account(evaluator);
  Plan base = Plan::Dense(evaluator->model().n_layer());
  // Blocks that are gone, in their order, stand before those that are left.
  for (auto rest = order.begin(); rest != order.end() && bytes(base) > max_bytes; ++rest) {
    DropCandidates candidates = CandidatesOf(base);
    std::erase_if(candidates.plans, [&bytes](const Plan& plan) { return bytes(plan) == kNoSuchPlan; });
    if (candidates.plans.empty()) {
      break;
    }
    ESPALIER_ASSIGN_OR_RETURN(const LeastLoss least, CountedRound(evaluator, base, candidates.plans, known, &account));
    base = candidates.plans[least.index];
    const auto gone = std::find_if(rest, order.end(), [&base](BlockId block) { return !base.kept(block); });
    std::rotate(rest, gone, gone + 1);
  }
  ESPALIER_ASSIGN_OR_RETURN(Plan plan, DropUntilItTakes(bytes, max_bytes, order));
  return account.Close(std::move(plan));
}

Result<SearchedPlan> SearchByGsiWithin(PlanEvaluator* evaluator, double max_loss, std::span<const BlockId> known) {
  Account account(evaluator);
  Plan base = Plan::Dense(evaluator->model().n_layer());
  while (base.kept_attention() + base.kept_ffn() > 1) {
    const DropCandidates candidates = CandidatesOf(base);
    ESPALIER_ASSIGN_OR_RETURN(const LeastLoss least, CountedRound(evaluator, base, candidates.plans, known, &account));
    if (least.kl > max_loss * static_cast<double>(evaluator->tokens_scored())) {
      break;
    }
    base = candidates.plans[least.index];
  }
  return account.Close(std::move(base));
}

Result<SearchedPlan> SearchByEvolution(PlanEvaluator* evaluator, const PlanBytes& bytes, uint64_t max_bytes,
                                       const EvolutionOptions& options) {
  return Evolution(evaluator, bytes, max_bytes, options).Run();
}

Result<SearchedPlan> AnswerFromChain(PlanEvaluator* evaluator, std::span<const BlockId> order, const PlanBytes& bytes,
                                     uint64_t max_bytes) {
  ESPALIER_ASSIGN_OR_RETURN(Plan plan, DropUntilItTakes(bytes, max_bytes, order));
  const std::span<const BlockId> first = order.first(plan.dropped().size());
  const bool on_chain = std::none_of(first.begin(), first.end(), [&plan](BlockId block) { return plan.kept(block); });
  ESPALIER_ASSIGN_OR_RETURN(SearchedPlan answer, Account(evaluator).Close(std::move(plan)));
  answer.evaluations = on_chain ? 0 : 1;
  return answer;
}

}  // namespace espalier
