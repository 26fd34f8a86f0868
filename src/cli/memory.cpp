// espalier memory: what a model takes with a plan and a workload, before anything is loaded.
#include <fmt/format.h>

#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "cli/command.h"
#include "cli/json.h"
#include "cli/options.h"
#include "cli/placement.h"
#include "model/quote.h"
#include "text/tokenizer.h"

namespace espalier {
namespace {

struct MemoryOptions {
  ModelOption model;
  std::string workload;
  BudgetOption budget;
  PlanOptions plan;
  PolicyFlags policy;
  EngineFlags engine;
  bool json = false;
};

void BindMemory(CLI::App& app, MemoryOptions& o) {
  AddModelOption(app, o.model);
  app.add_option("-w,--workload", o.workload,
                 "What is resident beside weights: 8x4096 is 8 sequences of 4096 tokens; default: one full context");
  AddBudgetOption(app, o.budget);
  AddPlanOptions(app, o.plan);
  AddPolicyFlags(app, o.policy);
  AddEngineFlags(app, o.engine);
  AddJsonFlag(app, o.json);
}

// Everything that the report says.
struct MemoryPlan {
  Placement placement;
  bool fits = true;
  uint64_t minimum_bytes = 0;  // of managed + process: everything dropped
  uint64_t file_bytes = 0;     // what the page cache may hold beside it
};

uint64_t KvBytesOfBlock(const MemoryPlan& plan, BlockId block) {
  return block.is_attention() ? KvBytes(plan.placement.survey.memory.kv, plan.placement.survey.workload) : 0;
}

uint64_t TotalBytes(const MemoryPlan& plan) {
  return plan.placement.survey.base.process_bytes + plan.placement.footprint.peak_bytes();
}

Json ReportOf(const Model& model, const MemoryPlan& plan) {
  const MemorySurvey& survey = plan.placement.survey;
  Json report = {{"model", ModelJson(model)}, {"workload", ToJson(survey.workload)}};
  AddPlacement(report, plan.placement);
  report["fits"] = plan.fits;
  report["total_bytes"] = TotalBytes(plan);
  report["minimum_bytes"] = plan.minimum_bytes;
  report["dense_peak_bytes"] = survey.base.dense_peak_bytes;
  report.update(ToJson(plan.placement.footprint));
  report["global_weight_bytes"] = survey.memory.global_bytes;
  report["graph_bytes"] = survey.memory.compute_bytes;
  report["backend_scratch_bytes"] = survey.memory.work_bytes;
  report["host_buffer_bytes"] = survey.memory.host_bytes;
  report["process_bytes"] = survey.base.process_bytes;
  report["reclaimable_bytes"] = plan.file_bytes;
  report["kv_bytes_per_cell_of_a_layer"] = survey.memory.kv.bytes_per_cell();
  report["blocks"] = Json::array();
  for (int b = 0; b < model.n_block(); ++b) {
    report["blocks"].push_back({{"block", BlockName({b})},
                                {"kept", plan.placement.plan.kept({b})},
                                {"weight_bytes", survey.memory.block_bytes[static_cast<size_t>(b)]},
                                {"kv_bytes", KvBytesOfBlock(plan, {b})}});
  }
  return report;
}

void PrintText(const Model& model, const MemoryPlan& plan) {
  const Placement& placement = plan.placement;
  const MemorySurvey& survey = placement.survey;
  const Footprint& f = placement.footprint;
  const auto row = [](std::string_view name, uint64_t bytes, const std::string& note = "") {
    fmt::print("  {:<12} {:>14} {:>11}  {}\n", name, bytes, FormatBytes(bytes), note);
  };
  fmt::print("{} {} at workload {}, plan {} ({})\n\n", model.display_name(), model.quantization(),
             survey.workload.ToText(), placement.plan.ToText(), placement.policy->name());
  row("weights", f.weight_bytes,
      fmt::format("{} of {} blocks, and {} outside all blocks",
                  placement.plan.kept_attention() + placement.plan.kept_ffn(), model.n_block(),
                  FormatBytes(survey.memory.global_bytes)));
  row("KV", f.kv_bytes,
      fmt::format("{} cells in {} attention blocks", survey.workload.kv_cells, placement.plan.kept_attention()));
  row("compute", f.compute_bytes);
  row("staging", f.staging_bytes, "while blocks are loaded");
  row("managed", f.peak_bytes(), "peak of the above");
  row("process", survey.base.process_bytes, "libraries, tokenizer, heap");
  row("total", TotalBytes(plan), "what a budget is compared with");
  row("minimum", plan.minimum_bytes, "with every block dropped");
  row("reclaimable", plan.file_bytes, "page cache of the model file at most; not counted");
  if (placement.budget) {
    row("budget", placement.limit_bytes(), plan.fits ? "fits" : "does not fit");
  }
  if (!placement.profile.path.empty()) {
    fmt::print("  {}, ablation {}, by {}\n", DescribeLoss(placement.loss), AblationName(placement.profile.ablation),
               Printable(placement.profile.path, 4096));
  }
  fmt::print("\n  {:<6} {:>14} {:>14}\n", "block", "weights", "KV");
  for (int b = 0; b < model.n_block(); ++b) {
    const uint64_t kv = KvBytesOfBlock(plan, {b});
    fmt::print("  {:<6} {:>14} {:>14}{}\n", BlockName({b}), survey.memory.block_bytes[static_cast<size_t>(b)],
               kv == 0 ? "" : fmt::format("{}", kv), placement.plan.kept({b}) ? "" : "  dropped");
  }
}

Result<MemoryPlan> PlanMemory(const MemoryOptions& o, const std::shared_ptr<const Model>& model) {
  const int64_t context = model->hparams().n_ctx_train;
  Workload workload = Workload::Uniform(1, context);
  if (!o.workload.empty()) {
    ESPALIER_ASSIGN_OR_RETURN(workload, Workload::Parse(o.workload));
  }
  ESPALIER_RETURN_IF_ERROR(CheckContext(*model, workload.longest_sequence));
  // Part of every process that runs the model, and so of process_bytes.
  ESPALIER_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::Open(*model));
  ESPALIER_ASSIGN_OR_RETURN(EngineOptions options, o.engine.Read(workload));
  ESPALIER_ASSIGN_OR_RETURN(const auto budget, o.budget.Read());
  ESPALIER_ASSIGN_OR_RETURN(ProfileInUse profile, OpenProfile(o.policy, *model));
  options.means = profile.means;
  MemoryPlan plan;
  // A plan of the user's is reported whether it fits or not: that is the question.
  PlacementRequest request = {o.plan, o.plan.given() ? std::nullopt : budget, o.policy, std::move(profile)};
  ESPALIER_ASSIGN_OR_RETURN(plan.placement, Place(model, options, workload, std::move(request)));
  plan.placement.budget = budget;
  plan.fits = TotalBytes(plan) <= plan.placement.limit_bytes();
  const Plan nothing = Plan::Nothing(model->n_layer());
  const MemorySurvey& survey = plan.placement.survey;
  plan.minimum_bytes =
      survey.base.process_bytes + PredictFootprint(survey.memory, nothing, survey.workload).peak_bytes();
  plan.file_bytes = o.engine.drop_page_cache ? 0 : model->gguf().source().size();
  return plan;
}

Status Memory(const MemoryOptions& o) {
  ESPALIER_ASSIGN_OR_RETURN(const auto model, o.model.Open());
  ESPALIER_ASSIGN_OR_RETURN(const MemoryPlan plan, PlanMemory(o, model));
  AnnounceProfile(plan.placement);
  if (o.json) {
    PrintJson(ReportOf(*model, plan));
  } else {
    PrintText(*model, plan);
  }
  return Status::Ok();
}

}  // namespace

void AddMemoryCommand(CLI::App& app, std::vector<Command>& commands) {
  auto* memory = app.add_subcommand("memory", "What a model takes with a plan and a workload, and does it fit");
  memory->footer(
      "Examples:\n"
      "  espalier memory reference --workload 8x512\n"
      "  espalier memory model.gguf --workload 8x4096 --memory-budget 6GiB --json\n"
      "  espalier memory model.gguf --workload 8x4096 --memory-budget 70% --profile model.profile --policy gsi\n"
      "  espalier memory model.gguf --workload 1x4096 --drop a3,f7 -ctk q8_0 -ctv q8_0\n");
  AddCommand<MemoryOptions>(memory, commands, BindMemory, Memory);
}

}  // namespace espalier
