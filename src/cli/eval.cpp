// espalier eval: what a plan costs in quality, on a text of the user's.
#include <fmt/format.h>

#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "cli/command.h"
#include "cli/eval_tasks.h"
#include "cli/json.h"
#include "cli/number_check.h"
#include "cli/options.h"
#include "cli/placement.h"
#include "cli/progress.h"
#include "cli/text_option.h"
#include "eval/kl.h"
#include "eval/perplexity.h"
#include "eval/plan_switch.h"
#include "eval/window_batches.h"
#include "eval/windows.h"
#include "model/quote.h"
#include "text/tokenizer.h"

namespace espalier {
namespace {

struct EvalOptions {
  ModelOption model;
  TextOption text;
  bool kl = false;
  int64_t switch_at = -1;
  BudgetOption budget;
  PlanOptions plan;
  PolicyFlags policy;
  EngineFlags engine;
  TaskFlags tasks;
  bool json = false;
};

void BindEval(CLI::App& app, EvalOptions& o) {
  AddModelOption(app, o.model);
  auto* text = AddTextOption(app, o.text, "Text to score")->required(false);
  app.get_option("--ctx-size")
      ->description("Tokens of a window, or of a task's request; 0: 2048 (gptq), 512 (llama) or what the model has");
  auto* kl = app.add_flag("--kl", o.kl, "KL divergence of the plan from the dense model, beside perplexities");
  app.add_option("--switch-at", o.switch_at, "Change to the plan and back at this token of each window, in flight")
      ->check(AtLeast(1))
      ->excludes(kl);
  auto* tasks = AddTaskFlags(app, o.tasks);
  tasks->excludes(text)->excludes(kl)->excludes("--switch-at")->excludes("--windows")->excludes("--protocol");
  app.callback([text, tasks] {
    if (text->count() + tasks->count() == 0) {
      throw CLI::RequiredError("--text or --tasks");
    }
  });
  AddBudgetOption(app, o.budget);
  AddPlanOptions(app, o.plan);
  AddPolicyFlags(app, o.policy);
  AddEngineFlags(app, o.engine);
  AddJsonFlag(app, o.json);
}

Json ToJson(const EvalSubject& subject) {
  return {{"model", subject.model},
          {"quantization", subject.quantization},
          {"plan", subject.plan},
          {"corpus", subject.corpus},
          {"protocol", ProtocolName(subject.protocol)},
          {"text_tokens", subject.text_tokens},
          {"window_tokens", subject.window_tokens},
          {"windows", subject.windows},
          {"scored_tokens", subject.tokens_scored}};
}

void Add(Json& report, const std::string& key, const Estimate& estimate) {
  report[key] = estimate.value;
  report[key + "_error"] = estimate.error;
}

void PrintSubject(const EvalSubject& s) {
  fmt::print("{} {}, plan {}\n{}: protocol {}, {} windows of {} tokens, {} scored\n", Printable(s.model),
             s.quantization, s.plan, Printable(s.corpus), ProtocolName(s.protocol), s.windows, s.window_tokens,
             s.tokens_scored);
}

void PrintRow(std::string_view name, const Estimate& estimate, std::string_view unit = "") {
  fmt::print("  {:<28} {:>12.6f} +/- {:.6f} {}\n", name, estimate.value, estimate.error, unit);
}

Json ReportOf(const PerplexityResult& result) {
  Json report = ToJson(result.subject);
  Add(report, "perplexity", result.perplexity);
  Add(report, "mean_nll_nats", result.mean_nll);
  report["managed_bytes"] = result.managed_bytes;
  report["elapsed_ms"] = result.elapsed_ms;
  return report;
}

void PrintText(const PerplexityResult& result) {
  PrintSubject(result.subject);
  fmt::print("PPL = {:.4f} +/- {:.5f}\n", result.perplexity.value, result.perplexity.error);
  fmt::print("managed {}, {:.1f} s\n", FormatBytes(result.managed_bytes), result.elapsed_ms / 1000);
}

Json ReportOf(const KlResult& result) {
  Json report = ToJson(result.subject);
  Add(report, "perplexity", result.perplexity_plan);
  Add(report, "perplexity_dense", result.perplexity_dense);
  Add(report, "log_perplexity_ratio", result.log_perplexity_ratio);
  Add(report, "kl_nats", result.kl);
  report["kl_error_over_windows_nats"] = result.kl_error_over_windows;
  report["kl_median_nats"] = result.kl_median;
  report["kl_p90_nats"] = result.kl_p90;
  report["kl_p95_nats"] = result.kl_p95;
  report["kl_p99_nats"] = result.kl_p99;
  report["kl_p999_nats"] = result.kl_p999;
  report["kl_max_nats"] = result.kl_max;
  Add(report, "paper_kl_nats", result.paper);
  Add(report, "same_top_token", result.same_top_token);
  Add(report, "delta_p", result.delta_p);
  Add(report, "delta_p_rms", result.delta_p_rms);
  report["elapsed_ms"] = result.elapsed_ms;
  return report;
}

void PrintText(const KlResult& r) {
  PrintSubject(r.subject);
  PrintRow("PPL(dense)", r.perplexity_dense);
  PrintRow("PPL(plan)", r.perplexity_plan);
  PrintRow("ln(PPL(plan) / PPL(dense))", r.log_perplexity_ratio);
  PrintRow("KL(dense || plan)", r.kl, "nats per token");
  fmt::print("  {:<28} median {:.6f}, 90 % {:.6f}, 95 % {:.6f}, 99 % {:.6f}, 99.9 % {:.6f}, max {:.6f}\n", "",
             r.kl_median, r.kl_p90, r.kl_p95, r.kl_p99, r.kl_p999, r.kl_max);
  PrintRow("KL(plan || dense), as paper", r.paper);
  PrintRow("same top token", r.same_top_token);
  PrintRow("delta p", r.delta_p);
  PrintRow("RMS delta p", r.delta_p_rms);
}

Json ToJson(const SwitchScore& score) {
  Json json;
  Add(json, "perplexity", score.perplexity);
  Add(json, "mean_nll_nats", score.mean_nll);
  Add(json, "excess_nll_nats", score.excess_nll);
  return json;
}

Json ToJson(const SwitchCost& cost) {
  return {
      {"transitions", cost.transitions},       {"mean_ms", cost.mean_ms},           {"max_ms", cost.max_ms},
      {"released_bytes", cost.released_bytes}, {"loaded_bytes", cost.loaded_bytes}, {"peak_bytes", cost.peak_bytes}};
}

Json ReportOf(const PlanSwitchResult& result) {
  Json report = ToJson(result.subject);
  report["switch_at_token"] = result.switch_at;
  report["perplexity"] = result.dense_to_plan.perplexity.value;
  report["dense"] = ToJson(result.dense);
  report["fresh_plan"] = ToJson(result.fresh_plan);
  report["dense_to_plan"] = ToJson(result.dense_to_plan);
  report["plan_to_dense"] = ToJson(result.plan_to_dense);
  report["plan_to_dense_reprefilled"] = ToJson(result.plan_to_dense_reprefilled);
  report["skipped_attention_blocks"] = result.skipped_blocks;
  report["reprefill_ms"] = result.reprefill_ms;
  report["to_plan"] = ToJson(result.to_plan);
  report["to_dense"] = ToJson(result.to_dense);
  report["elapsed_ms"] = result.elapsed_ms;
  return report;
}

void PrintText(const PlanSwitchResult& r) {
  PrintSubject(r.subject);
  fmt::print("switch at token {}; scored from there:\n", r.switch_at);
  fmt::print("  {:<34} {:>10} {:>12} {:>22}\n", "", "PPL", "nats/token", "excess nats/token");
  const auto row = [](std::string_view name, const SwitchScore& s) {
    fmt::print("  {:<34} {:>10.4f} {:>12.5f} {:>12.5f} +/- {:.5f}\n", name, s.perplexity.value, s.mean_nll.value,
               s.excess_nll.value, s.excess_nll.error);
  };
  row("dense throughout", r.dense);
  row("plan throughout", r.fresh_plan);
  row("dense, then plan", r.dense_to_plan);
  row("plan, then dense", r.plan_to_dense);
  row("plan, then dense and reprefill", r.plan_to_dense_reprefilled);
  fmt::print("to the plan {:.2f} ms, back {:.2f} ms, reprefill {:.2f} ms; {:.1f} attention blocks skipped before it\n",
             r.to_plan.mean_ms, r.to_dense.mean_ms, r.reprefill_ms, r.skipped_blocks);
}

Result<Placement> PlaceEval(const EvalOptions& o, const std::shared_ptr<const Model>& model, const Workload& workload) {
  ESPALIER_ASSIGN_OR_RETURN(EngineOptions options, o.engine.Read(workload));
  ESPALIER_ASSIGN_OR_RETURN(const auto budget, o.budget.Read());
  ESPALIER_ASSIGN_OR_RETURN(ProfileInUse profile, OpenProfile(o.policy, *model));
  options.means = profile.means;
  ESPALIER_ASSIGN_OR_RETURN(Placement placement, Place(model, options, workload,
                                                       PlacementRequest{o.plan, budget, o.policy, std::move(profile)}));
  AnnouncePlacement(placement);
  return placement;
}

// With `plan`, which need not be the one that was placed.
Result<std::unique_ptr<Engine>> OpenEngine(const EvalOptions& o, const std::shared_ptr<const Model>& model,
                                           const Workload& workload, const Placement& placement, const Plan& plan) {
  ESPALIER_ASSIGN_OR_RETURN(EngineOptions options, o.engine.Read(workload));
  options.means = placement.profile.means;
  return Engine::Create(model, options, plan);
}

template <class Measured>
Status Show(const EvalOptions& o, const Placement& placement, const Result<Measured>& result) {
  ESPALIER_RETURN_IF_ERROR(result.status());
  if (o.json) {
    Json report = ReportOf(*result);
    AddPolicy(report, placement);
    report["budget_bytes"] = LimitJson(placement.limit_bytes());
    report["predicted_managed_bytes"] = placement.footprint.managed_bytes();
    PrintJson(report);
  } else {
    PrintText(*result);
    if (!placement.profile.path.empty()) {
      fmt::print("policy {}: {}, predicted managed {}\n", placement.policy->name(), DescribeLoss(placement.loss),
                 FormatBytes(placement.footprint.managed_bytes()));
    }
  }
  return Status::Ok();
}

Status EvalTasks(const EvalOptions& o, const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer) {
  ESPALIER_ASSIGN_OR_RETURN(const TaskRun run, ReadTasks(o.tasks, *model, tokenizer, o.text.window_tokens));
  const Workload workload = TaskWorkload(run.encoded, o.engine.n_ubatch);
  ESPALIER_ASSIGN_OR_RETURN(const Placement placement, PlaceEval(o, model, workload));
  ESPALIER_ASSIGN_OR_RETURN(const auto engine, OpenEngine(o, model, workload, placement, placement.plan));
  return Show(o, placement, RunTasks(o.tasks, run, engine.get()));
}

Status Eval(const EvalOptions& o) {
  ESPALIER_ASSIGN_OR_RETURN(const auto model, o.model.Open());
  ESPALIER_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::Open(*model));
  if (o.tasks.given()) {
    return EvalTasks(o, model, *tokenizer);
  }
  ESPALIER_ASSIGN_OR_RETURN(const Windows windows, o.text.Read(*model, *tokenizer));
  const Workload workload = EvalWorkload(windows.protocol, windows.window_tokens, windows.count(), 1);
  ESPALIER_ASSIGN_OR_RETURN(const Placement placement, PlaceEval(o, model, workload));
  ProgressBar bar(fmt::format("scoring {}", Printable(o.text.file, 40)));
  const EvalProgress progress = [&bar](int64_t done, int64_t total, double) {
    bar.Update(static_cast<uint64_t>(done), static_cast<uint64_t>(total));
  };
  const Plan dense = Plan::Dense(model->n_layer());
  if (o.kl) {
    const Workload both = EvalWorkload(windows.protocol, windows.window_tokens, windows.count(), 2);
    ESPALIER_ASSIGN_OR_RETURN(const auto engine, OpenEngine(o, model, both, placement, dense));
    return Show(o, placement, MeasureKl(engine.get(), placement.plan, windows, progress));
  }
  if (o.switch_at >= 0) {
    ESPALIER_ASSIGN_OR_RETURN(const auto engine, OpenEngine(o, model, workload, placement, dense));
    return Show(o, placement, MeasurePlanSwitch(engine.get(), placement.plan, windows, o.switch_at, progress));
  }
  ESPALIER_ASSIGN_OR_RETURN(const auto engine, OpenEngine(o, model, workload, placement, placement.plan));
  return Show(o, placement, MeasurePerplexity(engine.get(), windows, progress));
}

}  // namespace

void AddEvalCommand(CLI::App& app, std::vector<Command>& commands) {
  auto* eval = app.add_subcommand(
      "eval", "Perplexity, KL divergence and zero-shot accuracy of a plan, and the cost of changing plans");
  eval->footer(
      "Examples:\n"
      "  espalier eval reference --text book.txt --protocol llama\n"
      "  espalier eval reference --text book.txt --memory-budget 80% --kl --json\n"
      "  espalier eval reference --text book.txt --memory-budget 80% --profile reference.profile --policy gsi\n"
      "  espalier eval reference --text book.txt --drop a10,f10 --switch-at 256\n"
      "  espalier eval reference --tasks blimp.jsonl --limit 100 --drop a10,f10\n");
  AddCommand<EvalOptions>(eval, commands, BindEval, Eval);
}

}  // namespace espalier
