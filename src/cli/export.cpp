// espalier export: a plan as a smaller GGUF for stock llama.cpp.
#include "export/gguf_export.h"

#include <fmt/format.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "cli/command.h"
#include "cli/exporting.h"
#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/options.h"
#include "cli/policy_choice.h"
#include "model/quote.h"
#include "policy/profile_policies.h"

namespace espalier {
namespace {

struct ExportFlags {
  ModelOption model;
  PlanOptions plan;
  PolicyFlags policy;  // profile and ablation alone
  std::string output;
  bool json = false;
};

void BindExport(CLI::App& app, ExportFlags& o) {
  AddModelOption(app, o.model);
  AddPlanOptions(app, o.plan);
  app.add_option("-o,--output", o.output, "GGUF file to write; one that is there already is replaced")->required();
  app.add_option("--profile", o.policy.profile,
                 "What `espalier rank` measured for this model: the plan's loss is noted in the file; default: "
                 "MODEL.profile if there is one; none: without");
  app.add_option("--ablation", o.policy.ablation,
                 "What dropped blocks add: mean (their mean output, from the profile, as biases), zero; default: as "
                 "the profile says, else zero");
  AddJsonFlag(app, o.json);
}

// Of the very plan, where it was measured as it is exported.
std::optional<double> MeasuredLoss(const ProfileInUse& use, const Plan& plan) {
  const Archive* archive = use.profile != nullptr ? ServedArchive(*use.profile, {.ablation = use.ablation}) : nullptr;
  return archive != nullptr ? archive->LossOf(plan) : std::nullopt;
}

Status RunExport(const ExportFlags& o) {
  if (!o.plan.given()) {
    return InvalidArgument("nothing to drop: expected --drop a3,f7 or --plan FILE");
  }
  ESPALIER_ASSIGN_OR_RETURN(const auto model, o.model.Open());
  ESPALIER_ASSIGN_OR_RETURN(const Plan plan, o.plan.Read(model->n_layer()));
  ESPALIER_ASSIGN_OR_RETURN(const ProfileInUse use, OpenProfile(o.policy, *model));
  const std::optional<double> loss = MeasuredLoss(use, plan);
  ESPALIER_ASSIGN_OR_RETURN(const ExportOptions options, ExportOptionsFor(*model, use, plan, loss));
  ESPALIER_ASSIGN_OR_RETURN(const GgufExport prepared, GgufExport::Prepare(model, plan, options));
  const InterruptFlag interrupted;
  ESPALIER_RETURN_IF_ERROR(WriteExport(prepared, o.output, use, interrupted.get()));
  const uint64_t source_bytes = model->gguf().source().size();
  const double ratio = static_cast<double>(prepared.file_bytes()) / static_cast<double>(source_bytes);
  if (o.json) {
    PrintJson({{"model", ModelJson(*model)},
               {"plan", ToJson(plan)},
               {"ablation", AblationName(use.ablation)},
               {"loss_nats", loss ? Json(*loss) : Json()},
               {"output", o.output},
               {"architecture", prepared.architecture()},
               {"architecture_reason", prepared.architecture_reason()},
               {"layers", prepared.n_layer()},
               {"file_bytes", prepared.file_bytes()},
               {"source_file_bytes", source_bytes},
               {"size_ratio", ratio}});
    return Status::Ok();
  }
  fmt::print("{}: {} of {} blocks, {} layers of architecture {}, {} ({:.1f} % of {})\n", Printable(o.output, 4096),
             plan.kept_attention() + plan.kept_ffn(), plan.n_block(), prepared.n_layer(), prepared.architecture(),
             FormatBytes(prepared.file_bytes()), 100 * ratio, FormatBytes(source_bytes));
  fmt::print("architecture {}: {}\n", prepared.architecture(), prepared.architecture_reason());
  if (loss) {
    fmt::print("loss {:.4f} nats per token (measured), ablation {}\n", *loss, AblationName(use.ablation));
  }
  return Status::Ok();
}

}  // namespace

void AddExportCommand(CLI::App& app, std::vector<Command>& commands) {
  auto* command = app.add_subcommand("export", "Write a plan as a smaller GGUF that stock llama.cpp loads");
  command->footer(
      "Weights are copied as they are. Stock llama.cpp computes from the file what Espalier does under the plan.\n\n"
      "Examples:\n"
      "  espalier export reference --drop a3,f7 -o small.gguf\n"
      "  espalier export model-Q4_K_M.gguf --plan plan.json --profile model.profile -o small.gguf --json\n");
  AddCommand<ExportFlags>(command, commands, BindExport, RunExport);
}

}  // namespace espalier
