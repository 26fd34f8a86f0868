#include "importance/front_search.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "importance/candidates.h"
#include "importance/fronts.h"
#include "importance/loss_predictor.h"
#include "importance/race.h"

namespace espalier {
namespace {

class Search {
 public:
  Search(PlanEvaluator* evaluator, const MemoryModel& memory, const FrontSearchOptions& options)
      : evaluator_(evaluator), options_(options), fronts_(memory, options.kv_cells) {
    fronts_.AddAll(evaluator->archive());
  }

  Result<FrontSearchResult> Run(const std::function<bool(const FrontSearchResult&)>& time_is_up) {
    size_t tier = 0;
    while (tier < options_.tiers.size()) {
      bool tried_any = false;
      const LossPredictor predictor(evaluator_->archive(), evaluator_->model().n_block());
      for (const Plan& parent : Parents(options_.tiers[tier])) {
        for (const Plan& neighbour : Promising(parent, predictor)) {
          if (time_is_up(result_)) {
            return result_;
          }
          tried_any = true;
          ESPALIER_RETURN_IF_ERROR(Try(neighbour));
        }
      }
      tier = tried_any ? 0 : tier + 1;
    }
    result_.exhausted = true;
    return result_;
  }

 private:
  // Plans measured whole whose loss is at most `ratio` times what a plan of their bytes has to beat, by rising loss.
  std::vector<Plan> Parents(double ratio) const {
    if (ratio <= 1) {
      return fronts_.Plans();
    }
    const Archive& archive = evaluator_->archive();
    std::vector<std::pair<double, Plan>> parents;
    for (const ArchiveRow& row : archive.rows()) {
      if (archive.whole(row) && archive.Loss(row) <= ratio * fronts_.LossToBeat(row.plan)) {
        parents.emplace_back(archive.Loss(row), row.plan);
      }
    }
    std::stable_sort(parents.begin(), parents.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<Plan> plans;
    for (auto& [loss, plan] : parents) {
      plans.push_back(std::move(plan));
    }
    return plans;
  }

  // Neighbours of `parent` that nobody has looked at, those first that are expected to beat the most.
  std::vector<Plan> Promising(const Plan& parent, const LossPredictor& predictor) const {
    struct Guess {
      double log_ratio;  // of the expected loss to the loss to beat
      Plan plan;
    };
    const double parent_loss = evaluator_->archive().LossOf(parent).value_or(0);
    std::vector<Guess> guesses;
    for (Plan& plan : NeighboursOf(parent)) {
      if (tried_.contains(plan.ToText()) || evaluator_->archive().LossOf(plan).has_value()) {
        continue;
      }
      const double to_beat = fronts_.LossToBeat(plan);
      const double expected = std::log(parent_loss + 1e-3) + predictor.LogRatio(parent, plan);
      const double log_ratio = expected - std::log(to_beat + 1e-3);
      if (to_beat > 0 && log_ratio < std::log(options_.predicted_ratio)) {
        guesses.push_back({log_ratio, std::move(plan)});
      }
    }
    std::stable_sort(guesses.begin(), guesses.end(),
                     [](const Guess& a, const Guess& b) { return a.log_ratio < b.log_ratio; });
    std::vector<Plan> plans;
    for (Guess& guess : guesses) {
      if (static_cast<int>(plans.size()) < options_.neighbours_at_once) {
        plans.push_back(std::move(guess.plan));
      }
    }
    return plans;
  }

  static std::vector<Plan> NeighboursOf(const Plan& plan) {
    std::vector<Plan> neighbours = SwapsOf(plan);
    for (int b = 0; b < plan.n_block(); ++b) {
      neighbours.push_back(plan);
      neighbours.back().set_keep({b}, plan.kept({b}) ? 0 : 1);
    }
    return neighbours;
  }

  Status Try(const Plan& plan) {
    ++result_.tried;
    tried_.insert(plan.ToText());
    const double to_beat = fronts_.LossToBeat(plan) * static_cast<double>(evaluator_->tokens_scored());
    const int64_t all = evaluator_->n_windows();
    ESPALIER_ASSIGN_OR_RETURN(const bool after_eighth,
                              Within(plan, ScreeningWindows(*evaluator_), options_.ratio_after_eighth * to_beat));
    if (!after_eighth) {
      return Status::Ok();
    }
    ESPALIER_ASSIGN_OR_RETURN(const bool after_half, Within(plan, (all + 1) / 2, options_.ratio_after_half * to_beat));
    if (!after_half) {
      return Status::Ok();
    }
    ESPALIER_ASSIGN_OR_RETURN(const double loss, evaluator_->Measure(plan));
    result_.improved += fronts_.Add(plan, loss) ? 1 : 0;
    return Status::Ok();
  }

  // Whether the first windows of `plan`, scaled to the whole text by what these windows are worth on the fronts, stay
  // within `limit`.
  Result<bool> Within(const Plan& plan, int64_t windows, double limit) {
    ESPALIER_ASSIGN_OR_RETURN(const double sum, MeasureFirst(evaluator_, plan, windows));
    return sum / ShareOf(windows) <= limit;
  }

  // The share of the loss that falls on the first windows, averaged over the plans on the fronts.
  double ShareOf(int64_t windows) {
    const auto known = shares_.find(windows);
    if (known != shares_.end()) {
      return known->second;
    }
    double part = 0;
    double whole = 0;
    for (const Plan& plan : fronts_.Plans()) {
      const ArchiveRow* row = evaluator_->archive().Find(plan);
      for (size_t w = 0; w < row->windows.size(); ++w) {
        part += static_cast<int64_t>(w) < windows ? row->windows[w].kl : 0;
        whole += row->windows[w].kl;
      }
    }
    return shares_[windows] = whole > 0 ? part / whole : 1;
  }

  PlanEvaluator* evaluator_;
  FrontSearchOptions options_;
  Fronts fronts_;
  std::map<int64_t, double> shares_;
  std::set<std::string> tried_;  // by this search: what others abandoned gets its chance
  FrontSearchResult result_;
};

}  // namespace

Result<FrontSearchResult> SearchFronts(PlanEvaluator* evaluator, const MemoryModel& memory,
                                       const FrontSearchOptions& options,
                                       const std::function<bool(const FrontSearchResult&)>& time_is_up) {
  return Search(evaluator, memory, options).Run(time_is_up);
}

}  // namespace espalier
