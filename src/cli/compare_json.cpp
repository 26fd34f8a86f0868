// The report of espalier compare in JSON.
#include <string>
#include <utility>

#include "cli/compare_report.h"
#include "control/scenarios.h"
#include "eval/statistics.h"

namespace espalier {
namespace {

Json ToJson(const Interval& interval) {
  return {{"value", interval.value}, {"low", interval.low}, {"high", interval.high}};
}

Json ToJson(const std::optional<Interval>& interval) { return interval ? ToJson(*interval) : Json(); }

Json ToJson(const GeometricMean& mean) {
  Json json = {{"cells", mean.cells}};
  if (mean.cells > 0) {
    json.update(ToJson(mean.ratio));
  }
  return json;
}

Json ToJson(const PolicyResult& result, const std::string& name) {
  Json json = {{"policy", name}, {"refused", result.refused()}};
  if (result.refused()) {
    json["refusal"] = result.choice.refusal;
    return json;
  }
  json["plans"] = Json::array();
  for (const Decision& decision : result.choice.decisions) {
    Json plan = ToJson(decision.plan);
    plan["peak_bytes"] = decision.footprint.peak_bytes();
    if (decision.loss) {
      plan["predicted_loss_nats"] = decision.loss->nats;
      plan["predicted_loss_measured"] = decision.loss->measured;
    }
    json["plans"].push_back(std::move(plan));
  }
  json["peak_bytes"] = result.peak_bytes;
  json["loss_nats"] = ToJson(result.loss);
  json["perplexity"] = result.perplexity;
  json["ratio_to_best_known"] = ToJson(result.ratio);
  const auto& times = result.choice.decision_ms;
  json["decision_median_ms"] = Percentile(times, 0.5);
  json["decision_p99_ms"] = Percentile(times, 0.99);
  return json;
}

Json CellsJson(const PolicyComparison& comparison) {
  Json cells = Json::array();
  for (const CellResult& cell : comparison.cells) {
    const ScenarioMemory& scenario = comparison.scenarios[cell.cell.scenario];
    Json json = {{"workload", ToJson(scenario.scenario.workload)},
                 {"kv_to_weights", KvToWeights(scenario.survey.memory, scenario.scenario.workload)},
                 {"budget", cell.cell.budget.ToText()},
                 {"budget_bytes", cell.cell.limit_bytes},
                 {"process_bytes", scenario.survey.base.process_bytes},
                 {"dense_peak_bytes", scenario.survey.base.dense_peak_bytes},
                 {"dense_fits", cell.cell.dense_fits},
                 {"best_known", Json()},
                 {"policies", Json::array()}};
    if (cell.best) {
      json["best_known"] = {{"plan", ToJson(cell.best->plan)},
                            {"peak_bytes", cell.best->peak_bytes},
                            {"loss_nats", ToJson(cell.best->loss)}};
    }
    for (size_t i = 0; i < cell.policies.size(); ++i) {
      json["policies"].push_back(ToJson(cell.policies[i], comparison.policies[i].name));
    }
    cells.push_back(std::move(json));
  }
  return cells;
}

Json SummaryJson(const PolicyComparison& comparison) {
  Json policies = Json::array();
  for (const size_t i : PoliciesByRank(comparison)) {
    const PolicySummary& policy = comparison.policies[i];
    Json json = {{"policy", policy.name},
                 {"geometric_mean_ratio", ToJson(policy.all)},
                 {"by_seed", Json::array()},
                 {"by_budget", Json::array()},
                 {"ratio_to_table", ToJson(policy.to_table)},
                 {"refusals", policy.refusals},
                 {"decision_median_ms", policy.decision_median_ms},
                 {"decision_p99_ms", policy.decision_p99_ms}};
    for (const SeedSummary& seed : policy.seeds) {
      Json of_seed = ToJson(seed.all);
      of_seed["seed"] = seed.seed;
      json["by_seed"].push_back(std::move(of_seed));
    }
    for (size_t b = 0; b < comparison.budgets.size(); ++b) {
      Json of_budget = ToJson(policy.by_budget[b]);
      of_budget["budget"] = comparison.budgets[b].ToText();
      json["by_budget"].push_back(std::move(of_budget));
    }
    policies.push_back(std::move(json));
  }
  return policies;
}

Json ToJson(const Ladder& ladder) {
  Json json = {{"policy", ladder.policy}, {"rungs", Json::array()}, {"steps", Json::array()}};
  for (const LadderRung& rung : ladder.rungs) {
    json["rungs"].push_back({{"type", rung.name},
                             {"path", rung.path},
                             {"dense_peak_bytes", rung.dense_peak_bytes},
                             {"dense_kv_bytes", rung.dense_kv_bytes},
                             {"loss_nats", ToJson(rung.loss)},
                             {"perplexity", rung.perplexity}});
  }
  for (const LadderStep& step : ladder.steps) {
    Json one = {{"workload", ladder.workloads[step.workload].ToText()},
                {"larger", ladder.rungs[step.larger].name},
                {"smaller", ladder.rungs[step.smaller].name},
                {"smaller_dense_bytes", ladder.rungs[step.smaller].dense_peak_bytes[step.workload]},
                {"plan", step.plan ? ToJson(*step.plan) : Json()},
                {"pruning_wins", step.pruning_wins()}};
    if (step.plan) {
      one["pruned_bytes"] = step.pruned_peak_bytes;
      one["pruned_loss_nats"] = ToJson(step.pruned_loss);
      one["ratio"] = ToJson(step.ratio);
    }
    json["steps"].push_back(std::move(one));
  }
  json["points"] = Json::array();
  for (const LadderPoint& point : ladder.points) {
    json["points"].push_back({{"workload", ladder.workloads[point.workload].ToText()},
                              {"budget", point.budget},
                              {"plan", ToJson(point.plan)},
                              {"peak_bytes", point.peak_bytes},
                              {"loss_nats", ToJson(point.loss)}});
  }
  json["statements"] = Json::array();
  for (const LadderStatement& statement : ladder.statements) {
    json["statements"].push_back({{"workload", ladder.workloads[statement.workload].ToText()},
                                  {"pruning_wins_above_the_smallest_rung", statement.step.has_value()},
                                  {"share_of_source_bytes", statement.share_of_source},
                                  {"text", statement.text}});
  }
  json["notes"] = ladder.notes;
  json["plans_measured"] = ladder.plans_measured;
  return json;
}

}  // namespace

Json ToJson(const CompareReport& report) {
  const PolicyComparison& comparison = report.comparison;
  const MeasurementSet& set = comparison.set;
  Json json = {{"model", ModelJson(*report.model)},
               {"profile", report.profile},
               {"corpus", set.corpus},
               {"tokens_hash", set.tokens_hash},
               {"protocol", set.protocol},
               {"window_tokens", set.window_tokens},
               {"windows", set.n_windows},
               {"scored_tokens", set.tokens_scored},
               {"key_type", set.key_type},
               {"value_type", set.value_type},
               {"ablation", AblationName(set.ablation)},
               {"scenarios", report.scenarios},
               {"candidates_per_cell", report.candidates},
               {"perplexity_dense", comparison.dense_perplexity},
               {"plans_measured", comparison.plans_measured},
               {"plans_known", comparison.plans_known},
               {"cells_where_dense_fits", comparison.cells_where_dense_fits},
               {"winner", comparison.winner ? Json(comparison.policies[*comparison.winner].name) : Json()},
               {"verdicts", Verdicts(comparison)},
               {"warnings", report.warnings},
               {"missing_policies", comparison.missing},
               {"policies", SummaryJson(comparison)},
               {"cells", CellsJson(comparison)},
               {"ladder", report.ladder ? ToJson(*report.ladder) : Json()},
               {"kv_ladder", report.kv_ladder ? ToJson(*report.kv_ladder) : Json()},
               {"elapsed_ms", report.elapsed_ms}};
  return json;
}

}  // namespace espalier
