// espalier train stratnet: teaches the network that answers compression requests.
#include "cli/train_stratnet.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/number_check.h"
#include "cli/options.h"
#include "cli/policy_choice.h"
#include "cli/progress.h"
#include "cli/strategy_plot.h"
#include "cli/terminal.h"
#include "cli/text_option.h"
#include "cli/training_evaluator.h"
#include "importance/density.h"
#include "model/fingerprint.h"
#include "model/quote.h"
#include "profile/profile_file.h"
#include "runtime/engine.h"
#include "strategy/learn_strategies.h"
#include "strategy/loss_margin.h"
#include "strategy/objectives.h"
#include "strategy/strat_policy.h"
#include "strategy/strategy_plans.h"

namespace espalier {
namespace {

constexpr int kDiagnosedWorkloads = 6;

struct StratNetFlags {
  ModelOption model;
  std::string profile;
  int evaluations = StrategyLoopOptions().evaluations;
  uint64_t seed = 1;
  std::string plot;
  TextOption text = {.max_windows = 16, .spread = true};
  EngineFlags engine;
  bool json = false;
};

void BindStratNet(CLI::App& app, StratNetFlags& o) {
  AddModelOption(app, o.model);
  app.add_option("--profile", o.profile,
                 "What was measured for this model, which StratNet and the plans it proposes are added to; begun where "
                 "there is none; default: MODEL.profile");
  AddTextOption(app, o.text, "Calibration text to measure plans on; with a profile the one that it was ranked on");
  app.add_option("--evaluations", o.evaluations,
                 "Plans to measure in this run at most, once there are those that a first fit needs")
      ->check(InRange(0, 1'000'000))
      ->capture_default_str();
  app.add_option("--seed", o.seed, "Networks of several seeds stand beside each other in the profile")
      ->capture_default_str();
  app.add_option("--plot", o.plot, "Write what was measured, its front and StratNet's answers as SVG into this file");
  AddEngineFlags(app, o.engine);
  AddJsonFlag(app, o.json);
}

// Three workloads, from little KV cache to much.
std::vector<PlottedWorkload> Plotted(const StratNet& net, const LossSurrogate& surrogate, const Archive& archive,
                                     const MemoryModel& memory) {
  constexpr int kPreferences = 64;
  std::vector<PlottedWorkload> workloads;
  for (const int64_t cells : SpreadOfCells(memory, 3)) {
    const double ratio = static_cast<double>(cells) / memory.cells_of_weights();
    const Objectives objectives(memory, cells, 1);
    const auto plotted = [&](const Plan& plan, double loss) {
      return PlottedPlan{objectives.Size(KeepMatrix(std::span(&plan, 1)).col(0)), loss, plan.ToText()};
    };
    PlottedWorkload workload;
    workload.title = fmt::format("KV cache of {} cells, {:.2g} times the weights' bytes", cells, ratio);
    for (const ArchiveRow& row : archive.rows()) {
      if (archive.whole(row)) {
        workload.measured.push_back(plotted(row.plan, archive.Loss(row)));
      }
    }
    const Eigen::MatrixXf keep = net.Forward(EvenPreferences(kPreferences, ratio));
    for (Eigen::Index i = 0; i < keep.cols(); ++i) {
      const Plan plan = Snap(keep.col(i));
      const auto known = archive.LossOf(plan);
      workload.answers.push_back(plotted(plan, known ? *known : surrogate.Predict(plan).loss));
    }
    workloads.push_back(std::move(workload));
  }
  return workloads;
}

Json ReportOf(const StratNetFlags& o, const Model& model, const std::string& path, const StrategyReport& report,
              const SurrogateDiagnosis& surrogate) {
  Json json = {{"model", ModelJson(model)}, {"profile", path}, {"seed", o.seed}, {"rounds", Json::array()}};
  for (const StrategyRound& round : report.rounds) {
    json["rounds"].push_back({{"greedy", round.greedy},
                              {"evaluations", round.evaluations},
                              {"hypervolume", round.hypervolume},
                              {"surrogate_error", round.surrogate_error},
                              {"tchebycheff", round.tchebycheff},
                              {"seconds", round.seconds}});
  }
  json["work_in_whole_plans"] = report.work;
  json["worst_loss_nats"] = report.worst_loss;
  json["exhausted"] = report.exhausted;
  json["surrogate"] = {{"plans", surrogate.plans},
                       {"error", surrogate.error},
                       {"coverage_90", surrogate.coverage_90},
                       {"spearman", surrogate.spearman},
                       {"spearman_additive", surrogate.spearman_additive},
                       {"bands", surrogate.bands}};
  return json;
}

void PrintText(const StratNetFlags& o, const Model& model, const std::string& path, const StrategyReport& report,
               const SurrogateDiagnosis& surrogate) {
  fmt::print("{} {}: StratNet, seed {}\n", model.display_name(), model.quantization(), o.seed);
  fmt::print("  {:>11} {:>11} {:>15} {:>11} {:>9}\n", "evaluations", "hypervolume", "surrogate error", "tchebycheff",
             "seconds");
  const size_t n = report.rounds.size();
  const size_t step = std::max<size_t>(1, n / 12);  // a screen of them; JSON has all
  for (size_t i = 0; i < n; ++i) {
    const StrategyRound& round = report.rounds[i];
    if (i % step == 0 || i + 1 == n) {
      fmt::print("  {:>11} {:>11.5f} {:>15.3f} {:>11.4f} {:>9.1f}\n", round.evaluations, round.hypervolume,
                 round.surrogate_error, round.tchebycheff, round.seconds);
    }
  }
  fmt::print(
      "surrogate, {} plans near the front, each guessed from the others: error {:.3f} of ln(loss), {:.0f} % inside "
      "its 90 % interval,\nrank correlation at equal bytes {:.2f} (of added single losses: {:.2f})\n",
      surrogate.plans, surrogate.error, 100 * surrogate.coverage_90, surrogate.spearman, surrogate.spearman_additive);
  fmt::print("{}in {}\n", report.exhausted ? "nothing left that promised to add anything; " : "",
             Printable(path, 4096));
}

Status RunTrainStratNet(const StratNetFlags& o) {
  ESPALIER_ASSIGN_OR_RETURN(const auto model, o.model.Open());
  if (!o.plot.empty()) {
    ESPALIER_RETURN_IF_ERROR(AtomicFileWriter::Create(o.plot).status());  // known before the training
  }
  if (o.profile == "none") {
    return InvalidArgument("--profile none: expected the profile that StratNet is kept in");
  }
  const std::string path = o.profile.empty() ? model->path() + ".profile" : o.profile;
  ESPALIER_RETURN_IF_ERROR(RefuseProfile(o.plot, path));
  ESPALIER_ASSIGN_OR_RETURN(const EngineOptions serving, o.engine.Read(model->hparams().n_ctx_train));
  ESPALIER_ASSIGN_OR_RETURN(const MemoryModel memory, MeasureMemoryModel(model, serving));
  ESPALIER_ASSIGN_OR_RETURN(const Windows windows, ReadTrainingText(o.text, *model));
  RecoveryNotes notes;
  ESPALIER_ASSIGN_OR_RETURN(const auto store, ProfileStore::Open(path, *model, &notes));
  std::for_each(notes.begin(), notes.end(), Warn);
  ESPALIER_ASSIGN_OR_RETURN(const auto evaluator, OpenTrainingEvaluator(windows, o.engine, model, store.get()));
  InterruptFlag interrupted;
  evaluator->StopWhen(interrupted.get());

  StrategyLoopOptions options;
  options.evaluations = o.evaluations;
  options.training.seed = o.seed;
  StratNet net(model->n_block(), o.seed);
  if (const auto record = FindStratRecord(store->profile(), o.seed); record.ok()) {
    if (auto known = StratNetOf(**record, model->n_block()); known.ok()) {
      net = std::move(*known);  // it learns further
    }
  }
  const Ranking* greedy = store->profile().FindRanking("gsi");
  if (greedy != nullptr) {
    options.known_greedy = greedy->drop_order;
  }
  const auto keep = [&] {
    const Archive& archive = evaluator->archive();
    const int64_t evaluations = (archive.CountWindows() + archive.set().n_windows - 1) / archive.set().n_windows;
    store->profile().Put(RecordOf(net, o.seed, evaluations, store->profile().model_fingerprint));
    return store->Save();
  };
  Status kept;
  ProgressBar bar("training");
  auto report = LearnStrategies(evaluator.get(), memory, options, &net, [&](const StrategyRound& round) {
    if (!round.greedy) {
      kept = keep();
      if (!kept.ok()) {
        interrupted.Stop();  // on a full disk nothing is learned any more
      }
    }
    bar.Update(static_cast<uint64_t>(std::min<int64_t>(round.evaluations, o.evaluations)),
               static_cast<uint64_t>(std::max(o.evaluations, 1)),
               fmt::format("{} evaluations, hypervolume {:.5f}, surrogate error {:.3f}", round.evaluations,
                           round.hypervolume, round.surrogate_error));
  });
  ESPALIER_RETURN_IF_ERROR(kept);
  if (!report.ok() && report.status().code() == ErrorCode::kAborted) {
    ESPALIER_RETURN_IF_ERROR(store->Save());
    fmt::print(stderr,
               "espalier: stopped; what was measured and learned is in {}, and the same command goes on from "
               "there\n",
               Printable(path, 4096));
  }
  ESPALIER_RETURN_IF_ERROR(report.status());
  if (report->greedy && greedy == nullptr) {
    store->profile().Put(*report->greedy);
    ESPALIER_RETURN_IF_ERROR(store->Save());
  }
  ESPALIER_ASSIGN_OR_RETURN(const LossSurrogate surrogate, LossSurrogate::Fit(evaluator->archive(), model->n_layer()));
  const SurrogateDiagnosis diagnosis = Diagnose(surrogate, memory, SpreadOfCells(memory, kDiagnosedWorkloads));
  if (!o.plot.empty()) {
    ESPALIER_RETURN_IF_ERROR(WriteWholeFile(
        o.plot,
        StrategyPlot(Plotted(net, surrogate, evaluator->archive(), memory),
                     fmt::format("{} {}: StratNet, seed {}", model->display_name(), model->quantization(), o.seed))));
  }
  if (o.json) {
    PrintJson(ReportOf(o, *model, path, *report, diagnosis));
  } else {
    PrintText(o, *model, path, *report, diagnosis);
  }
  return Status::Ok();
}

}  // namespace

void AddTrainStratNet(CLI::App& train, std::vector<Command>& commands) {
  auto* command = train.add_subcommand(
      "stratnet", "UniCuCo's StratNet (arXiv 2505.12216): one network for any number of compression requests");
  command->footer(
      "Measures plans that StratNet proposes, and trains it through a surrogate fitted to all that was measured. It "
      "then\n"
      "decides with --policy stratnet wherever a policy is taken, and takes part in `espalier compare`.\n\n"
      "Examples:\n"
      "  espalier train stratnet reference --text calibration.txt --profile reference.profile --evaluations 100\n"
      "  espalier train stratnet model.gguf --text calibration.txt --windows 16 --seed 3 --json\n");
  AddCommand<StratNetFlags>(command, commands, BindStratNet, RunTrainStratNet);
}

}  // namespace espalier
