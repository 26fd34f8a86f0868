// espalier train rap: teaches the agent that chooses what to prune.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/number_check.h"
#include "cli/options.h"
#include "cli/policy_choice.h"
#include "cli/progress.h"
#include "cli/terminal.h"
#include "cli/text_option.h"
#include "cli/train_stratnet.h"
#include "cli/training_evaluator.h"
#include "cli/training_plot.h"
#include "control/rap_training.h"
#include "eval/plan_evaluator.h"
#include "model/fingerprint.h"
#include "model/quote.h"
#include "profile/profile_file.h"
#include "rl/agent.h"
#include "runtime/engine.h"

namespace espalier {
namespace {

struct TrainRapFlags {
  ModelOption model;
  std::string profile;
  std::string reward = "measured";
  std::string network = "paper";
  double minutes = 10;
  std::optional<int64_t> episodes;
  int rounds = 3;
  uint64_t seed = 1;
  std::string from;
  TextOption text = {.max_windows = 16, .spread = true};
  std::string plot;
  EngineFlags engine;
  bool json = false;
};

void BindTrainRap(CLI::App& app, TrainRapFlags& o) {
  AddModelOption(app, o.model);
  app.add_option("--profile", o.profile,
                 "What `espalier rank` measured for this model, which the agent is added to; default: MODEL.profile");
  app.add_option("--reward", o.reward,
                 "What the agent is paid: paper (after each step the kept blocks' importance less their memory), "
                 "measured (the loss of the plan it ends with)")
      ->check(CLI::IsMember({"paper", "measured"}))
      ->capture_default_str();
  app.add_option(
         "--network", o.network,
         "paper (a perceptron for this number of layers), shared (one encoder for all blocks: serves any depth)")
      ->check(CLI::IsMember({"paper", "shared"}))
      ->capture_default_str();
  app.add_option("--minutes", o.minutes, "Begin no further round after so long; 0: no limit")
      ->check(AtLeast(0.0))
      ->capture_default_str();
  app.add_option("--episodes", o.episodes,
                 "Episodes of one round; default: 30000 (paper's reward), 20000 (measured), 10000 (shared network)")
      ->check(InRange(int64_t{0}, int64_t{100'000'000}));
  app.add_option("--rounds", o.rounds,
                 "measured, with --text: rounds of training; between them the plans that the agent would serve are "
                 "measured")
      ->check(InRange(1, 1000))
      ->capture_default_str();
  app.add_option("--seed", o.seed, "Agents of several seeds stand beside each other in the profile")
      ->capture_default_str();
  app.add_option("--from", o.from,
                 "Another model's profile: begin with its agent of this network, reward and seed (shared network: of "
                 "any depth), which takes the place of one that is finished. With --episodes 0 it serves as it is");
  AddTextOption(app, o.text,
                "The calibration text that the profile was ranked on, where plans are to be measured; without it the "
                "loss of plans that are not in the profile is guessed")
      ->required(false);
  app.add_option("--plot", o.plot, "Write the curves (return, TD error, gap) as SVG into this file");
  AddEngineFlags(app, o.engine);
  AddJsonFlag(app, o.json);
}

RapTrainingOptions OptionsOf(const TrainRapFlags& o, StateKind network) {
  RapTrainingOptions options;
  options.reward = o.reward;
  options.training = DefaultTraining(network, o.reward == "measured");
  options.training.episodes = o.episodes.value_or(options.training.episodes);
  options.training.dqn.seed = o.seed;
  options.rounds = o.rounds;
  options.minutes = o.minutes;
  return options;
}

// The agent that --from names.
Result<std::optional<Agent>> OtherModelsAgent(const TrainRapFlags& o) {
  if (o.from.empty()) {
    return std::optional<Agent>();
  }
  ESPALIER_ASSIGN_OR_RETURN(const auto file, File::Open(o.from));
  RecoveryNotes notes;
  ESPALIER_ASSIGN_OR_RETURN(const Profile other, ParseProfile(*file, &notes));
  std::for_each(notes.begin(), notes.end(), Warn);
  for (const Agent& agent : other.agents) {
    if (agent.network == o.network && agent.reward == o.reward && agent.seed == o.seed) {
      return std::optional<Agent>(agent);
    }
  }
  return NotFound(fmt::format("--from {}: expected an agent of network '{}', reward '{}' and seed {}; found {} others",
                              Quote(o.from), o.network, o.reward, o.seed, other.agents.size()));
}

// nullptr without --text.
Result<std::unique_ptr<PlanEvaluator>> OpenEvaluator(const TrainRapFlags& o, const std::shared_ptr<const Model>& model,
                                                     ProfileStore* store) {
  if (o.text.file.empty()) {
    return std::unique_ptr<PlanEvaluator>();
  }
  ESPALIER_ASSIGN_OR_RETURN(const Windows windows, ReadTrainingText(o.text, *model));
  return OpenTrainingEvaluator(windows, o.engine, model, store);
}

Json ReportOf(const TrainRapFlags& o, const Model& model, const std::string& path, const RapTrainingReport& report) {
  Json json;
  json["model"] = ModelJson(model);
  json["profile"] = path;
  json["reward"] = o.reward;
  json["network"] = o.network;
  json["seed"] = o.seed;
  json["curve"] = Json::array();
  for (const TrainingProgress& p : report.curve) {
    json["curve"].push_back(
        {{"episodes", p.episodes}, {"return", p.mean_return}, {"td_error", p.td_error}, {"epsilon", p.epsilon}});
  }
  json["gaps"] = Json::array();
  for (const RapGap& gap : report.gaps) {
    json["gaps"].push_back(
        {{"episodes", gap.episodes}, {"seconds", gap.seconds}, {"mean", gap.mean}, {"worst", gap.worst}});
  }
  json["rivals"] = Json::array();
  for (const RivalGap& rival : report.rivals) {
    json["rivals"].push_back({{"policy", rival.policy}, {"mean", rival.mean}, {"worst", rival.worst}});
  }
  json["plans_measured"] = report.plans_measured;
  json["seconds"] = report.seconds;
  json["seconds_of"] = {{"surrogate", report.surrogate_seconds},
                        {"episodes", report.episode_seconds},
                        {"measuring", report.measuring_seconds}};
  return json;
}

void PrintText(const TrainRapFlags& o, const Model& model, const std::string& path, const RapTrainingReport& report) {
  fmt::print("{} {}: agent '{}', reward {}, seed {}\n", model.display_name(), model.quantization(), o.network, o.reward,
             o.seed);
  fmt::print("  {:>10} {:>12} {:>12} {:>9}   gap to {}\n", "episodes", "gap", "worst", "seconds",
             o.reward == "paper" ? "the optimum of the paper's reward" : "the best plan known");
  for (const RapGap& gap : report.gaps) {
    fmt::print("  {:>10} {:>10.2f} % {:>10.2f} % {:>9.1f}\n", gap.episodes, 100 * gap.mean, 100 * gap.worst,
               gap.seconds);
  }
  for (const RivalGap& rival : report.rivals) {
    fmt::print("  {:>10} {:>10.2f} % {:>10.2f} %\n", rival.policy, 100 * rival.mean, 100 * rival.worst);
  }
  fmt::print("{:.1f} s: episodes {:.1f}, surrogate {:.1f}, measuring {} plans {:.1f}\nin {}\n", report.seconds,
             report.episode_seconds, report.surrogate_seconds, report.plans_measured, report.measuring_seconds,
             Printable(path, 4096));
}

Result<RapTrainingReport> TrainInterruptibly(const MemoryModel& memory, const RapTrainingOptions& options,
                                             ProfileStore* store, PlanEvaluator* evaluator) {
  const InterruptFlag interrupted;
  if (evaluator != nullptr) {
    evaluator->StopWhen(interrupted.get());
  }
  ProgressBar bar("training");
  return TrainRap(memory, options, &store->profile(), evaluator, interrupted.get(),
                  [&bar](const RapTrainingNews& news) {
                    constexpr uint64_t kSteps = 10000;
                    const double done = std::clamp(news.done, 0.0, 1.0);
                    bar.Update(static_cast<uint64_t>(done * kSteps), kSteps, news.detail);
                  });
}

Status RunTrainRap(const TrainRapFlags& o) {
  ESPALIER_ASSIGN_OR_RETURN(const StateKind network, ParseStateKind(o.network));
  if (!o.plot.empty()) {
    ESPALIER_RETURN_IF_ERROR(AtomicFileWriter::Create(o.plot).status());  // known before the training
  }
  ESPALIER_ASSIGN_OR_RETURN(const auto model, o.model.Open());
  const std::string path = o.profile.empty() ? model->path() + ".profile" : o.profile;
  ESPALIER_RETURN_IF_ERROR(RefuseProfile(o.plot, path));
  // A profile that is not there is none to learn from: it is not begun here.
  RecoveryNotes notes;
  ESPALIER_RETURN_IF_ERROR(ReadProfile(path, *model, &notes).status());
  ESPALIER_ASSIGN_OR_RETURN(const EngineOptions serving, o.engine.Read(model->hparams().n_ctx_train));
  ESPALIER_ASSIGN_OR_RETURN(const MemoryModel memory, MeasureMemoryModel(model, serving));
  notes.clear();
  ESPALIER_ASSIGN_OR_RETURN(const auto store, ProfileStore::Open(path, *model, &notes));
  std::for_each(notes.begin(), notes.end(), Warn);
  ESPALIER_ASSIGN_OR_RETURN(const auto evaluator, OpenEvaluator(o, model, store.get()));
  RapTrainingOptions options = OptionsOf(o, network);
  ESPALIER_ASSIGN_OR_RETURN(options.initial, OtherModelsAgent(o));
  options.keep = [&store] { return store->Save(); };
  auto report = TrainInterruptibly(memory, options, store.get(), evaluator.get());
  ESPALIER_RETURN_IF_ERROR(store->Save());
  if (!report.ok() && report.status().code() == ErrorCode::kAborted) {
    fmt::print(stderr, "espalier: stopped; what it has learned is in {}, and the same command goes on from there\n",
               Printable(path, 4096));
  }
  ESPALIER_RETURN_IF_ERROR(report.status());
  if (!o.plot.empty()) {
    ESPALIER_RETURN_IF_ERROR(
        WriteWholeFile(o.plot, TrainingPlot(*report, fmt::format("{}: agent '{}', reward {}, seed {}",
                                                                 model->display_name(), o.network, o.reward, o.seed))));
  }
  if (o.json) {
    PrintJson(ReportOf(o, *model, path, *report));
  } else {
    PrintText(o, *model, path, *report);
  }
  return Status::Ok();
}

}  // namespace

void AddTrainCommand(CLI::App& app, std::vector<Command>& commands) {
  auto* train = app.add_subcommand("train", "Teach a learned policy for a model, into its profile");
  auto* rap = train->add_subcommand("rap", "RAP's agent (arXiv 2505.17138): drops blocks until a request fits");
  rap->footer(
      "Needs a profile made by `espalier rank`. The agent then decides with --policy rap wherever a policy is taken,\n"
      "and takes part in `espalier compare`.\n\n"
      "Examples:\n"
      "  espalier train rap reference --profile reference.profile\n"
      "  espalier train rap reference --profile reference.profile --reward paper --network paper --plot curves.svg\n"
      "  espalier train rap twin --profile twin.profile --network shared --from reference.profile --episodes 0\n"
      "  espalier train rap model.gguf --text calibration.txt --rounds 6 --minutes 20 --seed 3 --json\n");
  AddCommand<TrainRapFlags>(rap, commands, BindTrainRap, RunTrainRap);
  AddTrainStratNet(*train, commands);
}

}  // namespace espalier
