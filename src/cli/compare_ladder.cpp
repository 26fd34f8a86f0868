#include "cli/compare_ladder.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <utility>
#include <vector>

#include "control/scenarios.h"
#include "model/fingerprint.h"
#include "model/quote.h"
#include "policy/profile_policies.h"

namespace espalier {
namespace {

LadderModel OnLadder(const std::string& name, const std::shared_ptr<const Model>& model,
                     const std::shared_ptr<const Model>& source, const CompareSetting& setting,
                     const Windows& windows) {
  LadderModel entry = {name, model->path(), true, {}, {}};
  entry.memory = [model, setting](const Workload& workload) -> Result<MemoryModel> {
    ESPALIER_ASSIGN_OR_RETURN(const EngineOptions options, setting.EngineFor(workload));
    return MeasureMemoryModel(model, options);
  };
  entry.evaluator = [=, &windows]() -> Result<std::unique_ptr<PlanEvaluator>> {
    ESPALIER_ASSIGN_OR_RETURN(PlanEvaluatorOptions options, setting.Evaluator(windows));
    options.reference = model == source ? nullptr : source;
    return PlanEvaluator::Create(model, windows, options, nullptr);
  };
  return entry;
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
  auto* ladder =
      app.add_option("--ladder", flags.source,
                     "Compare with quantisation too: Q8_0 to Q2_K made from this f16 file of the same model");
  app.add_option("--ladder-folder", flags.folder, "Where their files are kept; default: a temporary folder")
      ->needs(ladder);
}

Result<LadderOptions> PrepareLadder(const LadderFlags& flags, const std::shared_ptr<const Model>& model,
                                    const CompareSetting& setting, const Windows& windows) {
  ESPALIER_ASSIGN_OR_RETURN(const auto source, Model::Open(flags.source));
  ESPALIER_RETURN_IF_ERROR(CheckSource(*model, *source));
  const std::string folder =
      !flags.folder.empty()
          ? flags.folder
          : (std::filesystem::temp_directory_path() / fmt::format("espalier-ladder-{}", ::getuid())).string();
  const auto told = [](const std::string& type) { fmt::print(stderr, "espalier: quantising to {}\n", type); };
  ESPALIER_ASSIGN_OR_RETURN(const auto files, MakeRungFiles(*source, folder, setting.flags.n_threads, told));
  ESPALIER_ASSIGN_OR_RETURN(const std::string subject, Fingerprint(*model));
  LadderOptions ladder;
  std::optional<size_t> found;
  const auto add = [&](const std::string& name, const std::shared_ptr<const Model>& rung) -> Status {
    ESPALIER_ASSIGN_OR_RETURN(const std::string fingerprint, Fingerprint(*rung));
    if (!found && fingerprint == subject) {
      found = ladder.models.size();
    }
    ladder.models.push_back(OnLadder(name, rung, source, setting, windows));
    return Status::Ok();
  };
  ESPALIER_RETURN_IF_ERROR(add(source->quantization(), source));
  for (const RungFile& file : files) {
    ESPALIER_ASSIGN_OR_RETURN(const auto rung, Model::Open(file.path));
    ESPALIER_RETURN_IF_ERROR(add(file.type, rung));
  }
  if (!found) {
    found = ladder.models.size();
    ladder.models.push_back(OnLadder(model->quantization(), model, source, setting, windows));
    ladder.models.back().rung = false;
  }
  ladder.subject = *found;
  return ladder;
}

Result<Ladder> Climb(LadderOptions options, const Profile& profile, const PolicyComparison& comparison) {
  ESPALIER_ASSIGN_OR_RETURN(const auto policy,
                            MakeProfilePolicy(ProfilePolicyNames().front(), profile, ServedLike(comparison.set)));
  std::vector<Scenario> scenarios;
  for (const ScenarioMemory& scenario : comparison.scenarios) {
    scenarios.push_back(scenario.scenario);
  }
  for (const CellResult& cell : comparison.cells) {
    options.cells.push_back(cell.cell);
  }
  options.process_bytes = comparison.scenarios.front().survey.base.process_bytes;
  Bars bars;
  std::string current;
  std::function<void(int64_t, int64_t)> update;
  options.progress = [&](const std::string& what, int64_t done, int64_t total) {
    if (what != current) {
      current = what;
      update = bars.Start(fmt::format("ladder, {}", Printable(what, 20)));
    }
    update(done, total);
  };
  return ClimbLadder(*policy, comparison.scenarios, DistinctInCells(scenarios), options);
}

}  // namespace espalier
