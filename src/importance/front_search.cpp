#include "importance/front_search.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "importance/candidates.h"
#include "importance/fronts.h"
#include "importance/race.h"
#include "surrogate/archive_surrogate.h"
#include "surrogate/share_model.h"

namespace espalier {
namespace {

constexpr int kBlocksToLookAtAll = 12;     // 4096 plans
constexpr size_t kPlansToLookAt = 20'000;  // at most, between two choices
constexpr size_t kCandidates = 3000;       // of them, that a choice is made from
constexpr double kLeastGain = 1e-5;        // Fronts::Gain

class Search {
 public:
  Search(PlanEvaluator* evaluator, const MemoryModel& memory, const FrontSearchOptions& options)
      : evaluator_(evaluator),
        options_(options),
        fronts_(memory, options.kv_cells),
        surrogate_(&evaluator->archive(), evaluator->model().n_layer()) {
    fronts_.AddAll(evaluator->archive());
  }

  Result<FrontSearchResult> Run(const std::function<bool(const FrontSearchResult&)>& time_is_up) {
    size_t level = 0;
    while (level < options_.optimism.size()) {
      ESPALIER_RETURN_IF_ERROR(surrogate_.Refresh());
      if (surrogate_.get() == nullptr) {
        return TooFewPlans();
      }
      shares_.emplace(evaluator_->archive(), surrogate_.get()->process().kernel());
      std::vector<Plan> plans = Promising(options_.optimism[level]);
      std::vector<Plan> neighbours = UntriedNeighbours(plans);
      plans.insert(plans.end(), std::make_move_iterator(neighbours.begin()), std::make_move_iterator(neighbours.end()));
      for (const Plan& plan : plans) {
        if (time_is_up(result_)) {
          return result_;
        }
        ESPALIER_RETURN_IF_ERROR(Try(plan, options_.optimism[level]));
      }
      level = plans.empty() ? level + 1 : 0;
    }
    result_.exhausted = true;
    return result_;
  }

 private:
  struct Hopeful {
    Plan plan;
    double loss = 0;         // guessed
    double above_front = 0;  // ln of it over the loss to beat
  };
  struct Candidate {
    Plan plan;
    LossSurrogate::Guess guess;
  };

  Status TooFewPlans() const {
    const Archive& archive = evaluator_->archive();
    const int n_layer = evaluator_->model().n_layer();
    const int64_t dense = archive.LossOf(Plan::Dense(n_layer)) ? 1 : 0;
    return InvalidArgument(
        fmt::format("search around the fronts: expected at least {} measured plans to learn from, found {}",
                    2 * n_layer, archive.CountWholeRows() - dense));
  }

  bool Known(const Plan& plan) const { return plan.dense() || evaluator_->archive().LossOf(plan).has_value(); }

  // Plans that were not measured whole: all of them, or those around the fronts as they are, then around the fronts as
  // they would be if the best guesses were true, and so on; of those the ones that come nearest to a front.
  std::vector<Candidate> Candidates() const {
    std::vector<Hopeful> found = evaluator_->model().n_block() <= kBlocksToLookAtAll ? AllPlans() : PlansAroundFronts();
    const size_t n = std::min(found.size(), kCandidates);
    const auto end = found.begin() + static_cast<std::ptrdiff_t>(n);
    std::nth_element(found.begin(), end, found.end(),
                     [](const Hopeful& a, const Hopeful& b) { return a.above_front < b.above_front; });
    std::vector<Plan> plans;
    for (auto it = found.begin(); it != end; ++it) {
      plans.push_back(std::move(it->plan));
    }
    const std::vector<LossSurrogate::Guess> guesses = surrogate_.get()->Predict(plans);
    std::vector<Candidate> candidates;
    for (size_t i = 0; i < n; ++i) {
      const LossSurrogate::Guess guess = Informed(plans[i], guesses[i]);
      candidates.push_back({std::move(plans[i]), guess});
    }
    return candidates;
  }

  std::vector<Hopeful> AllPlans() const {
    std::vector<Plan> plans;
    const int n_block = evaluator_->model().n_block();
    for (uint32_t bits = 1; bits < 1U << n_block; ++bits) {
      Plan plan = Plan::Dense(evaluator_->model().n_layer());
      for (int b = 0; b < n_block; ++b) {
        plan.set_keep({b}, (bits >> b & 1U) != 0 ? 0 : 1);
      }
      if (!Known(plan)) {
        plans.push_back(std::move(plan));
      }
    }
    std::vector<Hopeful> found;
    Expect(std::move(plans), &found);
    return found;
  }

  std::vector<Hopeful> PlansAroundFronts() const {
    Fronts expected = fronts_;
    std::vector<Hopeful> found;
    std::set<std::string> seen;
    std::set<std::string> expanded;
    while (found.size() < kPlansToLookAt) {
      std::vector<Plan> plans;
      for (const Plan& parent : expected.Plans()) {
        if (!expanded.insert(parent.ToText()).second) {
          continue;
        }
        for (Plan& plan : NeighboursOf(parent)) {
          if (seen.insert(plan.ToText()).second && !Known(plan)) {
            plans.push_back(std::move(plan));
          }
        }
      }
      if (plans.empty()) {
        break;
      }
      const size_t before = found.size();
      Expect(std::move(plans), &found);
      for (size_t i = before; i < found.size(); ++i) {
        expected.Add(found[i].plan, found[i].loss);
      }
    }
    return found;
  }

  // Guesses without their uncertainty, which would take most of the time.
  void Expect(std::vector<Plan> plans, std::vector<Hopeful>* found) const {
    const std::vector<double> log_means = surrogate_.get()->LogMeans(plans);
    for (size_t i = 0; i < plans.size(); ++i) {
      const double above = log_means[i] - std::log(fronts_.LossToBeat(plans[i]) + LossSurrogate::kFloor);
      found->push_back({std::move(plans[i]), std::max(0.0, std::exp(log_means[i]) - LossSurrogate::kFloor), above});
    }
  }

  // The candidates that are expected to beat a front by most, best first. Each counts as measured, with the loss that
  // is guessed, for those that come after it: they are to add something to it.
  std::vector<Plan> Promising(double optimism) const {
    const std::vector<Candidate> candidates = Candidates();
    Fronts expected = fronts_;
    std::vector<Plan> plans;
    while (static_cast<int>(plans.size()) < options_.plans_at_once) {
      const Candidate* best = nullptr;
      double most = kLeastGain;
      for (const Candidate& candidate : candidates) {
        const double gain = expected.Gain(candidate.plan, Hoped(candidate, optimism), LossSurrogate::kFloor);
        if (gain > most) {
          most = gain;
          best = &candidate;
        }
      }
      if (best == nullptr) {
        break;
      }
      plans.push_back(best->plan);
      expected.Add(best->plan, Hoped(*best, optimism));
    }
    return plans;
  }

  // Neighbours of plans on the fronts of which no window was measured, without those in `chosen`: the ones that are
  // expected nearest to a front.
  std::vector<Plan> UntriedNeighbours(const std::vector<Plan>& chosen) const {
    std::set<std::string> seen;
    for (const Plan& plan : chosen) {
      seen.insert(plan.ToText());
    }
    std::vector<Plan> plans;
    for (const Plan& parent : fronts_.Plans()) {
      for (Plan& plan : NeighboursOf(parent)) {
        if (seen.insert(plan.ToText()).second && !plan.dense() && KnownWindows(plan) == 0) {
          plans.push_back(std::move(plan));
        }
      }
    }
    std::vector<Hopeful> found;
    Expect(std::move(plans), &found);
    const size_t n = std::min(found.size(), static_cast<size_t>(options_.neighbours_at_once));
    std::partial_sort(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(n), found.end(),
                      [](const Hopeful& a, const Hopeful& b) { return a.above_front < b.above_front; });
    std::vector<Plan> nearest;
    for (size_t i = 0; i < n; ++i) {
      nearest.push_back(std::move(found[i].plan));
    }
    return nearest;
  }

  static double Hoped(const Candidate& candidate, double optimism) {
    const LossSurrogate::Guess& guess = candidate.guess;
    return std::max(0.0, std::exp(guess.log_mean - optimism * guess.log_sd) - LossSurrogate::kFloor);
  }

  static std::vector<Plan> NeighboursOf(const Plan& plan) {
    std::vector<Plan> neighbours = SwapsOf(plan);
    for (int b = 0; b < plan.n_block(); ++b) {
      neighbours.push_back(plan);
      neighbours.back().set_keep({b}, plan.kept({b}) ? 0 : 1);
    }
    return neighbours;
  }

  // Measures the plan as far as there is hope.
  Status Try(const Plan& plan, double optimism) {
    ++result_.tried;
    const int64_t all = evaluator_->n_windows();
    for (const int64_t part : {int64_t{8}, int64_t{4}, int64_t{2}}) {
      const int64_t windows = (all + part - 1) / part;
      if (windows <= KnownWindows(plan) || windows == all) {
        continue;
      }
      ESPALIER_RETURN_IF_ERROR(MeasureFirst(evaluator_, plan, windows).status());
      const Candidate candidate = {plan, Informed(plan, surrogate_.get()->Predict(plan))};
      if (fronts_.Gain(plan, Hoped(candidate, optimism), LossSurrogate::kFloor) <= kLeastGain) {
        return Status::Ok();
      }
    }
    ESPALIER_ASSIGN_OR_RETURN(const double loss, evaluator_->Measure(plan));
    result_.improved += fronts_.Add(plan, loss) ? 1 : 0;
    return Status::Ok();
  }

  int64_t KnownWindows(const Plan& plan) const {
    const ArchiveRow* row = evaluator_->archive().Find(plan);
    return row != nullptr ? static_cast<int64_t>(row->windows.size()) : 0;
  }

  // The guess together with what the windows seen so far say, each by its precision. A guess that they contradict was
  // less sure than it said: by as much as explains what is seen.
  LossSurrogate::Guess Informed(const Plan& plan, LossSurrogate::Guess guess) const {
    const ArchiveRow* row = evaluator_->archive().Find(plan);
    if (row == nullptr || row->windows.empty()) {
      return guess;
    }
    double sum = 0;
    for (const WindowLoss& window : row->windows) {
      sum += window.kl;
    }
    const ShareModel::Guess share = shares_->Predict(plan, static_cast<int64_t>(row->windows.size()));
    const double loss = sum / std::exp(share.log_mean) / static_cast<double>(evaluator_->tokens_scored());
    const double seen = std::log(loss + LossSurrogate::kFloor);
    const double seen_variance = share.log_sd * share.log_sd;
    const double apart = seen - guess.log_mean;
    const double guess_variance = std::max(guess.log_sd * guess.log_sd + 1e-12, apart * apart - seen_variance);
    const double guess_weight = 1 / guess_variance;
    const double seen_weight = 1 / seen_variance;
    guess.log_mean = (guess_weight * guess.log_mean + seen_weight * seen) / (guess_weight + seen_weight);
    guess.log_sd = 1 / std::sqrt(guess_weight + seen_weight);
    guess.loss = std::max(0.0, std::exp(guess.log_mean) - LossSurrogate::kFloor);
    return guess;
  }

  PlanEvaluator* evaluator_;
  FrontSearchOptions options_;
  Fronts fronts_;
  ArchiveSurrogate surrogate_;
  std::optional<ShareModel> shares_;
  FrontSearchResult result_;
};

}  // namespace

Result<FrontSearchResult> SearchFronts(PlanEvaluator* evaluator, const MemoryModel& memory,
                                       const FrontSearchOptions& options,
                                       const std::function<bool(const FrontSearchResult&)>& time_is_up) {
  return Search(evaluator, memory, options).Run(time_is_up);
}

}  // namespace espalier
