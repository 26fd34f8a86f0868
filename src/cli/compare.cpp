// espalier compare: every policy in every scenario, with the same bytes and on the same text.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/stopwatch.h"
#include "cli/command.h"
#include "cli/compare_ladder.h"
#include "cli/compare_report.h"
#include "cli/interrupt.h"
#include "cli/number_check.h"
#include "cli/options.h"
#include "cli/policy_choice.h"
#include "cli/terminal.h"
#include "cli/text_option.h"
#include "control/policy_comparison.h"
#include "control/scenarios.h"
#include "eval/plan_evaluator.h"
#include "eval/windows.h"
#include "model/quote.h"
#include "policy/profile_policies.h"
#include "profile/profile_file.h"
#include "profile/text_sketch.h"
#include "text/tokenizer.h"

namespace espalier {
namespace {

struct CompareFlags {
  ModelOption model;
  std::string profile;
  TextOption text = {.spread = true};
  std::string scenarios;
  int candidates = ComparisonOptions().candidates;
  std::string splits = "check";
  LadderFlags ladder;
  std::string html;
  EngineFlags engine;
  bool json = false;
};

void BindCompare(CLI::App& app, CompareFlags& o) {
  AddModelOption(app, o.model);
  app.add_option("--profile", o.profile,
                 "Profile made by espalier rank; what is measured is added to it; default: MODEL.profile");
  AddTextOption(app, o.text, "Text to measure losses on; not the one the profile was made with");
  app.add_option("--scenarios", o.scenarios,
                 "paper: 1x4096 to 8x4096 at 90 to 60 %; scaled: the same with tokens scaled to the model's size; or a "
                 "file with lines such as '8x512 90% 80%'. Default: scaled for models trained on fewer than 4096 "
                 "tokens, else paper");
  app.add_option("--candidates", o.candidates, "Plans of the archive to measure for each cell, beside the policies'")
      ->check(InRange(0, 1000))
      ->capture_default_str();
  app.add_option("--splits", o.splits,
                 "check: warn if the text is the one that the profile was made with; none: do not")
      ->check(CLI::IsMember({"check", "none"}))
      ->capture_default_str();
  AddLadderFlags(app, o.ladder);
  app.add_option("--html", o.html, "Write a page with plots to this file");
  AddEngineFlags(app, o.engine);
  AddJsonFlag(app, o.json);
}

Result<std::unique_ptr<ProfileStore>> OpenStore(const std::string& path, const Model& model,
                                                std::vector<std::string>* warnings) {
  std::error_code error;
  if (!std::filesystem::exists(path, error) && !std::filesystem::exists(path + ".journal", error)) {
    return NotFound(fmt::format("{}: no such profile; espalier rank makes one", path));
  }
  return ProfileStore::Open(path, model, warnings);
}

// Fills in the name of what was taken.
Result<std::vector<Scenario>> ReadScenarios(const CompareFlags& o, const std::shared_ptr<const Model>& model,
                                            const CompareSetting& setting, std::string* name) {
  constexpr int64_t kPapersTokens = 4096;
  const int64_t context = model->hparams().n_ctx_train;
  *name = !o.scenarios.empty() ? o.scenarios : context < kPapersTokens ? "scaled" : "paper";
  if (*name == "paper") {
    return PaperScenarios();
  }
  if (*name == "scaled") {
    ESPALIER_ASSIGN_OR_RETURN(const EngineOptions options, setting.EngineFor(Workload::Uniform(1, context)));
    ESPALIER_ASSIGN_OR_RETURN(const MemoryModel memory, MeasureMemoryModel(model, options));
    return ScaledScenarios(memory);
  }
  constexpr uint64_t kMaxBytes = 1 << 20;
  ESPALIER_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(*name, kMaxBytes));
  return ParseScenarios(text, *name);
}

// One figure for the process, taken before anything is loaded: limits must not differ by what was measured before.
Result<std::vector<ScenarioMemory>> Survey(const std::shared_ptr<const Model>& model, const CompareSetting& setting,
                                           std::vector<Scenario> scenarios) {
  std::vector<ScenarioMemory> surveyed;
  for (Scenario& scenario : scenarios) {
    ESPALIER_ASSIGN_OR_RETURN(const EngineOptions options, setting.EngineFor(scenario.workload));
    ESPALIER_ASSIGN_OR_RETURN(MemorySurvey survey, SurveyMemory(model, options, scenario.workload));
    if (!surveyed.empty()) {
      survey.base.process_bytes = surveyed.front().survey.base.process_bytes;
    }
    surveyed.push_back({std::move(scenario), std::move(survey)});
  }
  return surveyed;
}

// Empty, or the warning: policies that learned from a text look better on it than they are.
std::string OverlapWarning(const Profile& profile, const Windows& windows, const MeasurementSet& set) {
  const Archive* served = ServedArchive(profile, ServedLike(set));
  if (served == nullptr) {
    return "";
  }
  const std::string& learned_from = served->set().tokens_hash;
  if (set.tokens_hash == learned_from) {
    return fmt::format(
        "this is the text that the profile was made with, {}: its policies look better on it than they are",
        served->set().corpus);
  }
  for (const TextSketch& sketch : profile.texts) {
    const int64_t shared = sketch.tokens_hash == learned_from ? SharedRuns(sketch, windows.tokens) : 0;
    if (shared > 0) {
      return fmt::format(
          "the text overlaps with the one that the profile was made with, {}: it holds {} of its {} runs of {} tokens; "
          "policies look better on them than they are",
          sketch.corpus, shared, sketch.runs.size(), kSketchRunTokens);
    }
  }
  return "";
}

// Whether the profile has the policy that ladders are pruned by.
Status CheckLadderPolicy(const Profile& profile, const MeasurementSet& set) {
  return MakeProfilePolicy(ProfilePolicyNames().front(), profile, ServedLike(set)).status();
}

void AddWarnings(const CompareFlags& o, const Profile& profile, const Windows& windows, const MeasurementSet& set,
                 CompareReport* report) {
  if (const auto warning = o.splits == "check" ? OverlapWarning(profile, windows, set) : ""; !warning.empty()) {
    report->warnings.push_back(warning);
  }
  if (const auto warning = KvTypesWarning(profile, ServedLike(set)); !warning.empty()) {
    report->warnings.push_back(fmt::format("profile {}: {}", report->profile, warning));
  }
  // Nobody has asked for it: no error.
  if (const Status status = CheckLadderPolicy(profile, set); !o.ladder.no_kv && !status.ok()) {
    report->warnings.push_back(fmt::format("no KV ladder: {}", status.message()));
  }
  std::for_each(report->warnings.begin(), report->warnings.end(), Warn);
}

// The evaluator, which holds the model and the dense predictions, is gone when this is done.
Result<PolicyComparison> ComparePoliciesOf(const CompareFlags& o, const std::shared_ptr<const Model>& model,
                                           const Windows& windows, const CompareSetting& setting,
                                           std::vector<ScenarioMemory> scenarios, ProfileStore* store) {
  Bars bars;
  ESPALIER_ASSIGN_OR_RETURN(const PlanEvaluatorOptions options, setting.Evaluator(windows));
  std::atomic<bool> stop = false;
  ESPALIER_ASSIGN_OR_RETURN(const auto evaluator,
                            PlanEvaluator::Create(model, windows, options, store, bars.Start("dense predictions")));
  evaluator->StopWhen(&stop);
  const InterruptGuard guard([](void* flag) { static_cast<std::atomic<bool>*>(flag)->store(true); }, &stop);
  ComparisonOptions comparison;
  comparison.candidates = o.candidates;
  comparison.progress = bars.Start("measuring plans");
  const Profile& profile = store->profile();
  const ProfilePolicyOptions served = ServedLike(evaluator->set());
  return ComparePolicies(MakeLineup(profile, served), ServedArchive(profile, served), std::move(scenarios),
                         evaluator.get(), comparison);
}

Status Show(const CompareFlags& o, const CompareReport& report) {
  if (!o.html.empty()) {
    ESPALIER_RETURN_IF_ERROR(WriteWholeFile(o.html, ToHtml(report)));
  }
  if (o.json) {
    PrintJson(ToJson(report));
  } else {
    PrintText(report);
  }
  return Status::Ok();
}

Status Compare(const CompareFlags& o) {
  const Stopwatch watch;
  if (!o.html.empty()) {
    // Known before the measuring, which may take an hour; nothing is left behind.
    ESPALIER_RETURN_IF_ERROR(AtomicFileWriter::Create(o.html).status());
  }
  CompareReport report;
  report.candidates = o.candidates;
  ESPALIER_ASSIGN_OR_RETURN(report.model, o.model.Open());
  report.model_name = report.model->display_name();
  report.quantization = report.model->quantization();
  report.profile = o.profile.empty() ? report.model->path() + ".profile" : o.profile;
  ESPALIER_ASSIGN_OR_RETURN(const auto store, OpenStore(report.profile, *report.model, &report.warnings));
  ESPALIER_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::Open(*report.model));
  ESPALIER_ASSIGN_OR_RETURN(const Windows windows, o.text.Read(*report.model, *tokenizer));
  const CompareSetting setting = SettingOf(o.engine, store->profile());
  ESPALIER_ASSIGN_OR_RETURN(auto scenarios, ReadScenarios(o, report.model, setting, &report.scenarios));
  ESPALIER_ASSIGN_OR_RETURN(auto surveyed, Survey(report.model, setting, std::move(scenarios)));
  ESPALIER_ASSIGN_OR_RETURN(const PlanEvaluatorOptions options, setting.Evaluator(windows));
  const MeasurementSet set = DescribeSet(windows, options);
  AddWarnings(o, store->profile(), windows, set, &report);
  LadderOptions ladder;
  if (o.ladder.given()) {
    ESPALIER_RETURN_IF_ERROR(CheckLadderPolicy(store->profile(), set));
    ESPALIER_ASSIGN_OR_RETURN(ladder, PrepareLadder(o.ladder, report.model, setting, windows));
  }
  auto comparison = ComparePoliciesOf(o, report.model, windows, setting, std::move(surveyed), store.get());
  store->profile().Put(SketchText(set.corpus, set.tokens_hash, windows.tokens));
  ESPALIER_RETURN_IF_ERROR(store->Save());
  if (!comparison.ok() && comparison.status().code() == ErrorCode::kAborted) {
    fmt::print(stderr, "espalier: stopped; what was measured is in {}, and the same command goes on from there\n",
               Printable(report.profile, 4096));
  }
  ESPALIER_ASSIGN_OR_RETURN(report.comparison, std::move(comparison));
  if (o.ladder.given()) {
    ESPALIER_ASSIGN_OR_RETURN(report.ladder, Climb(std::move(ladder), store->profile(), report.comparison));
  }
  if (!o.ladder.no_kv && CheckLadderPolicy(store->profile(), set).ok()) {
    ESPALIER_ASSIGN_OR_RETURN(ladder, PrepareKvLadder(report.model, setting, windows));
    ESPALIER_ASSIGN_OR_RETURN(report.kv_ladder, Climb(std::move(ladder), store->profile(), report.comparison));
  }
  report.elapsed_ms = watch.Milliseconds();
  return Show(o, report);
}

}  // namespace

void AddCompareCommand(CLI::App& app, std::vector<Command>& commands) {
  auto* compare =
      app.add_subcommand("compare", "Every policy in every scenario: what it loses with the same bytes, on one text");
  compare->footer(
      "Examples:\n"
      "  espalier compare reference --profile reference.profile --text test.txt --html compare.html\n"
      "  espalier compare model-Q4_K_M.gguf --profile model.profile --text test.txt --windows 64 --json \\\n"
      "    --ladder model-f16.gguf --ladder-folder rungs -ctk q8_0 -ctv q8_0\n");
  AddCommand<CompareFlags>(compare, commands, BindCompare, Compare);
}

}  // namespace espalier
