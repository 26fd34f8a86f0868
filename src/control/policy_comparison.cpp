#include "control/policy_comparison.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <span>
#include <utility>

#include "control/measured_plans.h"
#include "eval/statistics.h"

namespace espalier {
namespace {

// ln of loss over best known, in full and in every resample.
struct LogRatio {
  double value = 0;
  std::vector<double> resampled;
};

LogRatio RatioOf(const LossFigures& loss, const LossFigures& best) {
  // A resample may draw windows in which a plan costs nothing at all; the logarithm must stay finite.
  const auto log_of = [](double x) { return std::log(std::max(x, 1e-12)); };
  LogRatio ratio = {log_of(loss.loss) - log_of(best.loss), {}};
  for (size_t i = 0; i < loss.resampled.size(); ++i) {
    ratio.resampled.push_back(log_of(loss.resampled[i]) - log_of(best.resampled[i]));
  }
  return ratio;
}

Interval ExpOf(double log_value, std::vector<double> log_resampled) {
  Interval interval = WindowBootstrap::IntervalOf(log_value, std::move(log_resampled));
  return {std::exp(interval.value), std::exp(interval.low), std::exp(interval.high)};
}

// exp of the mean over `ratios`, resample by resample: windows are drawn once for all cells, as they are the same text.
GeometricMean GeometricMeanOf(std::span<const LogRatio* const> ratios) {
  if (ratios.empty()) {
    return {};
  }
  const auto n = static_cast<double>(ratios.size());
  double value = 0;
  std::vector<double> resampled(ratios.front()->resampled.size(), 0.0);
  for (const LogRatio* ratio : ratios) {
    value += ratio->value / n;
    for (size_t i = 0; i < resampled.size(); ++i) {
      resampled[i] += ratio->resampled[i] / n;
    }
  }
  return {static_cast<int>(ratios.size()), ExpOf(value, std::move(resampled))};
}

std::vector<const LogRatio*> PointersTo(const std::vector<LogRatio>& ratios) {
  std::vector<const LogRatio*> pointers;
  for (const LogRatio& ratio : ratios) {
    pointers.push_back(&ratio);
  }
  return pointers;
}

// One object for one comparison: holds what the steps share.
class Comparer {
 public:
  Comparer(PlanEvaluator* evaluator, const ComparisonOptions& options, std::vector<ScenarioMemory> scenarios)
      : evaluator_(evaluator), options_(options), bootstrap_(evaluator->n_windows(), options.resamples, options.seed) {
    result_.set = evaluator->set();
    result_.dense_perplexity = std::exp(evaluator->dense_nll());
    result_.scenarios = std::move(scenarios);
  }

  Result<PolicyComparison> Run(Lineup lineup, const Archive* calibration) {
    Decide(lineup);
    result_.missing = std::move(lineup.missing);
    lineup.contestants.clear();
    if (calibration != nullptr) {
      AddCandidates(*calibration);
    }
    ESPALIER_ASSIGN_OR_RETURN(result_.plans_measured,
                              MeasurePlans(std::move(to_measure_), evaluator_, options_.progress));
    CollectKnownPlans();
    for (size_t i = 0; i < result_.cells.size(); ++i) {
      Judge(&result_.cells[i], &log_ratios_[i]);
    }
    for (size_t i = 0; i < result_.policies.size(); ++i) {
      Summarise(i);
    }
    FindWinner();
    return std::move(result_);
  }

 private:
  // A plan of the archive with what it takes in each scenario.
  struct KnownPlan {
    const ArchiveRow* row = nullptr;
    double loss = 0;
    std::vector<uint64_t> peak_bytes;
  };

  void Decide(const Lineup& lineup) {
    std::vector<std::vector<float>> times(lineup.contestants.size());
    for (const Cell& cell : MakeCells(result_.scenarios)) {
      CellResult decided = {cell, {}, {}};
      const MemorySurvey& survey = result_.scenarios[cell.scenario].survey;
      const Observation observation = survey.Observe(cell.budget);
      for (size_t i = 0; i < lineup.contestants.size(); ++i) {
        PolicyResult policy;
        policy.choice = Choose(lineup.contestants[i], observation, options_.timing_calls);
        times[i].insert(times[i].end(), policy.choice.decision_ms.begin(), policy.choice.decision_ms.end());
        for (const Decision& decision : policy.choice.decisions) {
          to_measure_.push_back(decision.plan);
        }
        decided.policies.push_back(std::move(policy));
      }
      if (std::find(result_.budgets.begin(), result_.budgets.end(), cell.budget) == result_.budgets.end()) {
        result_.budgets.push_back(cell.budget);
      }
      result_.cells_where_dense_fits += cell.dense_fits ? 1 : 0;
      result_.cells.push_back(std::move(decided));
    }
    // The dense plan's loss is 0 and needs no measurement.
    std::erase_if(to_measure_, [](const Plan& plan) { return plan.dense(); });
    log_ratios_.resize(result_.cells.size());
    for (size_t i = 0; i < lineup.contestants.size(); ++i) {
      std::sort(times[i].begin(), times[i].end());
      PolicySummary summary;
      summary.name = lineup.contestants[i].name;
      for (const uint64_t seed : lineup.contestants[i].seeds) {
        summary.seeds.push_back({seed, {}});
      }
      if (!times[i].empty()) {
        summary.decision_median_ms = Percentile(times[i], 0.5);
        summary.decision_p99_ms = Percentile(times[i], 0.99);
      }
      result_.policies.push_back(std::move(summary));
    }
  }

  // Plans of `archive` that were measured whole, least loss first.
  std::vector<KnownPlan> KnownPlansOf(const Archive& archive) const {
    std::vector<KnownPlan> known;
    for (const ArchiveRow& row : archive.rows()) {
      if (archive.whole(row) && !row.plan.dense() && row.plan.whole_blocks_only()) {
        KnownPlan plan = {&row, archive.Loss(row), {}};
        for (const ScenarioMemory& scenario : result_.scenarios) {
          plan.peak_bytes.push_back(
              PredictFootprint(scenario.survey.memory, row.plan, scenario.scenario.workload).peak_bytes());
        }
        known.push_back(std::move(plan));
      }
    }
    std::stable_sort(known.begin(), known.end(),
                     [](const KnownPlan& a, const KnownPlan& b) { return a.loss < b.loss; });
    return known;
  }

  bool FitsCell(const KnownPlan& plan, const Cell& cell) const {
    const uint64_t process = result_.scenarios[cell.scenario].survey.base.process_bytes;
    return process + plan.peak_bytes[cell.scenario] <= cell.limit_bytes;
  }

  void AddCandidates(const Archive& calibration) {
    const std::vector<KnownPlan> known = KnownPlansOf(calibration);
    for (const CellResult& cell : result_.cells) {
      int wanted = cell.cell.dense_fits ? 0 : options_.candidates;
      for (auto plan = known.begin(); wanted > 0 && plan != known.end(); ++plan) {
        if (FitsCell(*plan, cell.cell)) {
          to_measure_.push_back(plan->row->plan);
          --wanted;
        }
      }
    }
  }

  void CollectKnownPlans() {
    known_ = KnownPlansOf(evaluator_->archive());
    result_.plans_known = static_cast<int64_t>(known_.size());
    for (size_t i = 0; i < result_.scenarios.size(); ++i) {
      std::vector<PlanPoint> front;
      const ScenarioMemory& scenario = result_.scenarios[i];
      const Plan dense = Plan::Dense(static_cast<int>(scenario.survey.memory.block_bytes.size() / 2));
      uint64_t least_bytes = scenario.survey.base.dense_peak_bytes;
      front.push_back({dense, least_bytes, 0});
      for (const KnownPlan& plan : known_) {
        if (plan.peak_bytes[i] < least_bytes) {
          least_bytes = plan.peak_bytes[i];
          front.push_back({plan.row->plan, least_bytes, plan.loss});
        }
      }
      std::reverse(front.begin(), front.end());
      result_.fronts.push_back(std::move(front));
    }
  }

  const LossFigures& Figures(const Plan& plan) {
    const auto [at, is_new] = figures_.try_emplace(plan.ToText());
    if (is_new) {
      at->second = FiguresOf(plan, evaluator_->archive(), evaluator_->dense_nll(), bootstrap_);
    }
    return at->second;
  }

  // Means over the policy's instances.
  LossFigures MeanFigures(const std::vector<Decision>& decisions) {
    LossFigures mean;
    mean.resampled.resize(static_cast<size_t>(bootstrap_.n_resamples()), 0.0);
    const auto n = static_cast<double>(decisions.size());
    for (const Decision& decision : decisions) {
      const LossFigures& figures = Figures(decision.plan);
      mean.loss += figures.loss / n;
      mean.mean_nll += figures.mean_nll / n;
      for (size_t i = 0; i < mean.resampled.size(); ++i) {
        mean.resampled[i] += figures.resampled[i] / n;
      }
    }
    return mean;
  }

  void Judge(CellResult* cell, std::vector<std::optional<LogRatio>>* log_ratios) {
    const LossFigures* best = nullptr;
    const auto known =
        std::find_if(known_.begin(), known_.end(), [&](const KnownPlan& plan) { return FitsCell(plan, cell->cell); });
    if (cell->cell.dense_fits) {
      const ScenarioMemory& scenario = result_.scenarios[cell->cell.scenario];
      const Plan dense = Plan::Dense(static_cast<int>(scenario.survey.memory.block_bytes.size() / 2));
      cell->best = BestKnown{dense, scenario.survey.base.dense_peak_bytes, {}};
    } else if (known != known_.end()) {
      best = &Figures(known->row->plan);
      cell->best = BestKnown{known->row->plan, known->peak_bytes[cell->cell.scenario],
                             WindowBootstrap::IntervalOf(best->loss, best->resampled)};
    }
    for (PolicyResult& policy : cell->policies) {
      std::optional<LogRatio>& log_ratio = log_ratios->emplace_back();
      if (policy.refused()) {
        continue;
      }
      const auto& decisions = policy.choice.decisions;
      const LossFigures figures = MeanFigures(decisions);
      for (const Decision& decision : decisions) {
        policy.peak_bytes += decision.footprint.peak_bytes() / decisions.size();
      }
      policy.loss = WindowBootstrap::IntervalOf(figures.loss, figures.resampled);
      policy.perplexity = std::exp(figures.mean_nll);
      if (best != nullptr) {
        log_ratio = RatioOf(figures, *best);
        policy.ratio = ExpOf(log_ratio->value, log_ratio->resampled);
      }
    }
  }

  // Ratios of policy `i` in all cells, or in those with `budget`.
  std::vector<const LogRatio*> RatiosOf(size_t i, const Budget* budget) const {
    std::vector<const LogRatio*> ratios;
    for (size_t cell = 0; cell < result_.cells.size(); ++cell) {
      const auto& ratio = log_ratios_[cell][i];
      if (ratio && (budget == nullptr || result_.cells[cell].cell.budget == *budget)) {
        ratios.push_back(&*ratio);
      }
    }
    return ratios;
  }

  void Summarise(size_t i) {
    PolicySummary& summary = result_.policies[i];
    summary.all = GeometricMeanOf(RatiosOf(i, nullptr));
    for (const Budget& budget : result_.budgets) {
      summary.by_budget.push_back(GeometricMeanOf(RatiosOf(i, &budget)));
    }
    for (const CellResult& cell : result_.cells) {
      summary.refusals += cell.policies[i].refused() ? 1 : 0;
    }
    for (size_t seed = 0; seed < summary.seeds.size(); ++seed) {
      summary.seeds[seed].all = RatioOfInstance(i, seed);
    }
    summary.to_table = AgainstTable(i);
  }

  // Of policy `i` with one of its instances alone.
  GeometricMean RatioOfInstance(size_t i, size_t instance) {
    std::vector<LogRatio> ratios;
    for (const CellResult& cell : result_.cells) {
      const auto& decisions = cell.policies[i].choice.decisions;
      if (cell.best && !cell.cell.dense_fits && !decisions.empty()) {
        ratios.push_back(RatioOf(Figures(decisions[instance].plan), Figures(cell.best->plan)));
      }
    }
    return GeometricMeanOf(PointersTo(ratios));
  }

  std::optional<Interval> AgainstTable(size_t i) const {
    const auto table = std::find_if(result_.policies.begin(), result_.policies.end(),
                                    [](const PolicySummary& policy) { return policy.name == "table"; });
    if (table == result_.policies.end()) {
      return std::nullopt;
    }
    std::vector<LogRatio> ratios;
    for (const auto& cell : log_ratios_) {
      const auto& ours = cell[i];
      const auto& tables = cell[static_cast<size_t>(table - result_.policies.begin())];
      if (ours && tables) {
        LogRatio ratio = {ours->value - tables->value, ours->resampled};
        std::transform(ratio.resampled.begin(), ratio.resampled.end(), tables->resampled.begin(),
                       ratio.resampled.begin(), std::minus<>());
        ratios.push_back(std::move(ratio));
      }
    }
    const GeometricMean mean = GeometricMeanOf(PointersTo(ratios));
    return mean.cells > 0 ? std::optional(mean.ratio) : std::nullopt;
  }

  void FindWinner() {
    for (size_t i = 0; i < result_.policies.size(); ++i) {
      const PolicySummary& policy = result_.policies[i];
      const auto key = [](const PolicySummary& p) { return std::pair(p.refusals, p.all.ratio.value); };
      if (policy.all.cells > 0 && (!result_.winner || key(policy) < key(result_.policies[*result_.winner]))) {
        result_.winner = i;
      }
    }
  }

  PlanEvaluator* const evaluator_;
  const ComparisonOptions& options_;
  const WindowBootstrap bootstrap_;
  PolicyComparison result_;
  std::vector<Plan> to_measure_;
  std::vector<KnownPlan> known_;  // on this text, least loss first
  std::map<std::string, LossFigures> figures_;
  std::vector<std::vector<std::optional<LogRatio>>> log_ratios_;  // [cell][policy]
};

}  // namespace

Result<PolicyComparison> ComparePolicies(Lineup lineup, const Archive* calibration,
                                         std::vector<ScenarioMemory> scenarios, PlanEvaluator* evaluator,
                                         const ComparisonOptions& options) {
  return Comparer(evaluator, options, std::move(scenarios)).Run(std::move(lineup), calibration);
}

}  // namespace espalier
