#include "cli/compare_ladder.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string_view>
#include <utility>
#include <vector>

#include "control/scenarios.h"
#include "model/fingerprint.h"
#include "model/quote.h"
#include "policy/profile_policies.h"

namespace espalier {
namespace {

// A model, and how it is served.
struct Served {
  std::shared_ptr<const Model> model;
  CompareSetting setting;

  bool Like(const Served& other) const {
    return model == other.model && setting.flags.key_type == other.setting.flags.key_type &&
           setting.flags.value_type == other.setting.flags.value_type;
  }
};

LadderModel OnLadder(const std::string& name, const Served& rung, const Served& source, const Windows& windows) {
  LadderModel entry = {name, rung.model->path(), true, {}, {}};
  entry.memory = [rung](const Workload& workload) -> Result<MemoryModel> {
    ESPALIER_ASSIGN_OR_RETURN(const EngineOptions options, rung.setting.EngineFor(workload));
    return MeasureMemoryModel(rung.model, options);
  };
  entry.evaluator = [rung, source, &windows]() -> Result<std::unique_ptr<PlanEvaluator>> {
    ESPALIER_ASSIGN_OR_RETURN(PlanEvaluatorOptions options, rung.setting.Evaluator(windows));
    if (!rung.Like(source)) {
      ESPALIER_ASSIGN_OR_RETURN(const PlanEvaluatorOptions of_source, source.setting.Evaluator(windows));
      options.reference = source.model;
      options.reference_engine = of_source.engine;
    }
    return PlanEvaluator::Create(rung.model, windows, options, nullptr);
  };
  return entry;
}

std::string KvRungName(const EngineFlags& flags) {
  return flags.key_type == flags.value_type ? flags.key_type : fmt::format("{}/{}", flags.key_type, flags.value_type);
}

Status CheckSource(const Model& model, const Model& source) {
  const auto& a = model.hparams();
  const auto& b = source.hparams();
  if (a.n_layer != b.n_layer || a.n_embd != b.n_embd || a.n_vocab != b.n_vocab) {
    return InvalidArgument(
        fmt::format("ladder source {}: {} layers, width {}, vocabulary {}; expected those of {}: {}, {} and {}",
                    source.path(), b.n_layer, b.n_embd, b.n_vocab, model.path(), a.n_layer, a.n_embd, a.n_vocab));
  }
  return Status::Ok();
}

// What `policy` decided in the comparison's cells at these workloads.
std::vector<LadderPoint> PointsOf(const PolicyComparison& comparison, std::string_view policy,
                                  const std::vector<size_t>& workloads) {
  std::vector<LadderPoint> points;
  for (const CellResult& cell : comparison.cells) {
    const auto workload = std::find(workloads.begin(), workloads.end(), cell.cell.scenario);
    for (size_t i = 0; workload != workloads.end() && i < cell.policies.size(); ++i) {
      const PolicyResult& result = cell.policies[i];
      if (comparison.policies[i].name == policy && !result.refused()) {
        points.push_back({static_cast<size_t>(workload - workloads.begin()), cell.cell.budget.ToText(),
                          result.choice.decisions.front().plan, result.peak_bytes, result.loss});
      }
    }
  }
  return points;
}

}  // namespace

CompareSetting SettingOf(const EngineFlags& flags, const Profile& profile) {
  CompareSetting setting = {flags, profile.ablation, nullptr};
  if (profile.ablation == Ablation::kMean) {
    setting.means = std::make_shared<const BlockMeans>(profile.means);
  }
  return setting;
}

Result<EngineOptions> CompareSetting::EngineFor(const Workload& workload) const {
  ESPALIER_ASSIGN_OR_RETURN(EngineOptions options, flags.Read(workload));
  options.means = means;
  return options;
}

Result<PlanEvaluatorOptions> CompareSetting::Evaluator(const Windows& windows) const {
  PlanEvaluatorOptions options;
  ESPALIER_ASSIGN_OR_RETURN(options.engine, flags.Read(windows.window_tokens));
  options.ablation = ablation;
  options.means = means;
  return options;
}

void AddLadderFlags(CLI::App& app, LadderFlags& flags) {
  auto* ladder = app.add_option(
      "--ladder", flags.source,
      "Compare with quantisation too: Q8_0 to Q2_K made from this f16 file of the same model (or reference, twin)");
  app.add_option("--ladder-folder", flags.folder, "Where their files are kept; default: a temporary folder")
      ->needs(ladder);
  app.add_flag("--no-kv-ladder", flags.no_kv,
               "Do not compare with smaller types of the KV cache (from -ctk and -ctv down to q4_0)");
}

Result<LadderOptions> PrepareLadder(const LadderFlags& flags, const std::shared_ptr<const Model>& model,
                                    const CompareSetting& setting, const Windows& windows) {
  ESPALIER_ASSIGN_OR_RETURN(const auto source, ModelOption{flags.source}.Open());
  ESPALIER_RETURN_IF_ERROR(CheckSource(*model, *source));
  const std::string folder =
      !flags.folder.empty()
          ? flags.folder
          : (std::filesystem::temp_directory_path() / fmt::format("espalier-ladder-{}", ::getuid())).string();
  const auto told = [](const std::string& type) { fmt::print(stderr, "espalier: quantising to {}\n", type); };
  ESPALIER_ASSIGN_OR_RETURN(const auto files, MakeRungFiles(*source, folder, setting.flags.n_threads, told));
  ESPALIER_ASSIGN_OR_RETURN(const std::string subject, Fingerprint(*model));
  const Served served_source = {source, setting};
  LadderOptions ladder;
  std::optional<size_t> found;
  const auto add = [&](const std::string& name, const std::shared_ptr<const Model>& rung) -> Status {
    ESPALIER_ASSIGN_OR_RETURN(const std::string fingerprint, Fingerprint(*rung));
    if (!found && fingerprint == subject) {
      found = ladder.models.size();
    }
    ladder.models.push_back(OnLadder(name, {rung, setting}, served_source, windows));
    return Status::Ok();
  };
  ESPALIER_RETURN_IF_ERROR(add(source->quantization(), source));
  for (const RungFile& file : files) {
    ESPALIER_ASSIGN_OR_RETURN(const auto rung, Model::Open(file.path));
    ESPALIER_RETURN_IF_ERROR(add(file.type, rung));
  }
  if (!found) {
    found = ladder.models.size();
    ladder.models.push_back(OnLadder(model->quantization(), {model, setting}, served_source, windows));
    ladder.models.back().rung = false;
  }
  ladder.subject = *found;
  return ladder;
}

Result<LadderOptions> PrepareKvLadder(const std::shared_ptr<const Model>& model, const CompareSetting& setting,
                                      const Windows& windows) {
  const Served source = {model, setting};
  const EngineFlags& flags = setting.flags;
  LadderOptions ladder;
  ladder.kind = LadderKind::kKv;
  ladder.models.push_back(OnLadder(KvRungName(flags), source, source, windows));
  // What a cell takes, and which types can be served, is the same at every workload.
  const Workload workload = Workload::Uniform(1, 1);
  ESPALIER_ASSIGN_OR_RETURN(const MemoryModel of_source, ladder.models.front().memory(workload));
  for (const KvType type : {KvType::kQ8_0, KvType::kQ4_0}) {
    Served rung = source;
    rung.setting.flags.key_type = rung.setting.flags.value_type = KvTypeName(type);
    LadderModel model_on_ladder = OnLadder(KvRungName(rung.setting.flags), rung, source, windows);
    const auto memory = model_on_ladder.memory(workload);
    if (!memory.ok() && memory.status().code() == ErrorCode::kUnsupported) {
      ladder.notes.push_back(fmt::format("KV {} is left out: {}", model_on_ladder.name, memory.status().message()));
      continue;
    }
    ESPALIER_RETURN_IF_ERROR(memory.status());
    if (memory->kv.bytes_per_cell() < of_source.kv.bytes_per_cell()) {
      ladder.models.push_back(std::move(model_on_ladder));
    }
  }
  if (flags.key_type != flags.value_type) {
    ladder.notes.push_back(
        fmt::format("the first rung has the keys and values that were asked for, {} and {}; those below it have one "
                    "type for both",
                    flags.key_type, flags.value_type));
  }
  if (ladder.models.size() == 1 && ladder.notes.empty()) {
    ladder.notes.push_back(fmt::format("no KV type is smaller than {}", ladder.models.front().name));
  }
  return ladder;
}

Result<Ladder> Climb(LadderOptions options, const Profile& profile, const PolicyComparison& comparison) {
  ESPALIER_ASSIGN_OR_RETURN(const auto policy,
                            MakeProfilePolicy(ProfilePolicyNames().front(), profile, ServedLike(comparison.set)));
  std::vector<Scenario> scenarios;
  for (const ScenarioMemory& scenario : comparison.scenarios) {
    scenarios.push_back(scenario.scenario);
  }
  const bool measured = options.subject == 0;  // what the curve needs
  if (!measured) {
    for (const CellResult& cell : comparison.cells) {
      options.cells.push_back(cell.cell);
    }
  }
  options.process_bytes = comparison.scenarios.front().survey.base.process_bytes;
  Bars bars;
  std::string current;
  std::function<void(int64_t, int64_t)> update;
  options.progress = [&](const std::string& what, int64_t done, int64_t total) {
    if (what != current) {
      current = what;
      update = bars.Start(fmt::format("{}, {}", LadderTitle(options.kind), Printable(what, 20)));
    }
    update(done, total);
  };
  const std::vector<size_t> workloads = DistinctInCells(scenarios);
  ESPALIER_ASSIGN_OR_RETURN(Ladder ladder, ClimbLadder(*policy, comparison.scenarios, workloads, options));
  if (measured) {
    ladder.points = PointsOf(comparison, policy->name(), workloads);
  }
  return ladder;
}

}  // namespace espalier
