// espalier rank: measures what blocks are worth and fills the model's profile.
#include "importance/rank.h"
#include "cli/number_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/terminal.h"
#include "cli/text_option.h"
#include "eval/plan_evaluator.h"
#include "importance/exhaustive.h"
#include "model/quote.h"
#include "profile/profile_file.h"
#include "profile/text_sketch.h"

namespace espalier {
namespace {

struct RankFlags {
  ModelOption model;
  TextOption text = {.max_windows = 16, .spread = true};
  std::string output;
  std::optional<double> minutes;
  std::vector<std::string> searches;
  bool every_plan = false;
  std::string ablation = "zero";
  int resident_blocks = 0;
  uint64_t seed = 1;
  EngineFlags engine;
  bool json = false;
};

void BindRank(CLI::App& app, RankFlags& o) {
  AddModelOption(app, o.model);
  AddTextOption(app, o.text, "Calibration text. Not one that results are to be reported on");
  app.add_option(
      "-o,--output", o.output,
      "Profile to make or to add to; default: MODEL.profile. Measurements are kept as they are made: after an "
      "interrupt, the same command goes on where it stopped");
  app.add_option(
         "--minutes", o.minutes,
         "Go on with swaps around the orders found until this much time was spent in all; 0: no swaps. Default: "
         "for as long again as the orders took")
      ->check(AtLeast(0.0));
  app.add_option("--searches", o.searches,
                 "Which rankings to search for, of gsi, one-shot and density; none: go on with what the profile has; "
                 "default: all")
      ->delimiter(',')
      ->check(CLI::IsMember({"gsi", "one-shot", "density", "none"}));
  app.add_flag("--every-plan", o.every_plan,
               fmt::format("Measure all 2^n plans of a model of n blocks besides, {} at most, in place of swaps",
                           kMaxExhaustiveBlocks));
  app.add_option("--ablation", o.ablation, "What dropped blocks add: mean (their mean output on the text), zero")
      ->check(CLI::IsMember({"mean", "zero"}))
      ->capture_default_str();
  app.add_option("--resident-blocks", o.resident_blocks,
                 "Blocks in memory at once at most; 1 measures a model that does not fit. 0: all of them")
      ->check(AtLeast(0))
      ->capture_default_str();
  app.add_option("--seed", o.seed, "Seed of the first random order")->capture_default_str();
  AddEngineFlags(app, o.engine);
  AddJsonFlag(app, o.json);
}

// One bar for each phase.
class RankBar {
 public:
  void Show(const RankProgress& progress) {
    if (phase_ != progress.phase || !bar_) {
      bar_.emplace(progress.phase);
      phase_ = progress.phase;
    }
    constexpr uint64_t kSteps = 10000;
    const double done = std::clamp(progress.done, 0.0, 1.0);
    bar_->Update(static_cast<uint64_t>(done * kSteps), kSteps, progress.detail);
  }
  void Finish() { bar_.reset(); }

 private:
  std::string phase_;
  std::optional<ProgressBar> bar_;
};

// The profile keeps marks of every text it was measured on, this one from now on included.
std::vector<std::string> NoteText(ProfileStore& store, const Windows& windows, const MeasurementSet& set) {
  std::vector<std::string> overlaps;
  for (const TextSketch& other : store.profile().texts) {
    const int64_t shared = other.tokens_hash == set.tokens_hash ? 0 : SharedRuns(other, windows.tokens);
    if (shared > 0) {
      overlaps.push_back(
          fmt::format("{} overlaps with {}, which the profile was measured on too: {} of its {} runs of {} tokens are "
                      "in both. If one of them is for testing, figures on it will look better than they are",
                      Quote(windows.corpus), Quote(other.corpus), shared, other.runs.size(), kSketchRunTokens));
    }
  }
  store.profile().Put(SketchText(windows.corpus, set.tokens_hash, windows.tokens));
  return overlaps;
}

Json ToJson(const RankPhase& phase) {
  Json json = {{"name", phase.name},
               {"plans", phase.plans},
               {"measured_windows", phase.windows},
               {"recalled_windows", phase.recalled},
               {"flop", phase.flops},
               {"naive_flop", nullptr},
               {"share_of_naive", nullptr},
               {"seconds", phase.seconds}};
  if (phase.naive_flops > 0) {
    json["naive_flop"] = phase.naive_flops;
    json["share_of_naive"] = phase.flops / phase.naive_flops;
  }
  return json;
}

Json ToJson(const Ranking& ranking) {
  Json order = Json::array();
  for (const BlockId block : ranking.drop_order) {
    order.push_back(BlockName(block));
  }
  return {{"method", ranking.method}, {"kv_cells", ranking.kv_cells}, {"seed", ranking.seed}, {"drop_order", order}};
}

// What a finished ranking has to tell.
struct Ranked {
  const Model& model;
  std::string path;
  const MeasurementSet& set;
  const Profile& profile;
  RankSummary summary;
  std::vector<std::string> warnings;
};

Json ReportOf(const Ranked& ranked) {
  const MeasurementSet& set = ranked.set;
  Json report;
  report["model"] = ModelJson(ranked.model);
  report["profile"] = ranked.path;
  report["corpus"] = set.corpus;
  report["tokens_hash"] = set.tokens_hash;
  report["protocol"] = set.protocol;
  report["window_tokens"] = set.window_tokens;
  report["windows"] = set.n_windows;
  report["scored_tokens"] = set.tokens_scored;
  report["ablation"] = AblationName(set.ablation);
  report["phases"] = Json::array();
  for (const RankPhase& phase : ranked.summary.phases) {
    report["phases"].push_back(ToJson(phase));
  }
  report["seconds"] = ranked.summary.seconds;
  report["archive_plans"] = ranked.summary.archive_rows;
  report["rankings"] = Json::array();
  for (const Ranking& ranking : ranked.profile.rankings) {
    report["rankings"].push_back(ToJson(ranking));
  }
  report["warnings"] = ranked.warnings;
  return report;
}

void PrintText(const Ranked& ranked) {
  const MeasurementSet& set = ranked.set;
  fmt::print("{} {}\n{}: protocol {}, {} windows of {} tokens, {} scored; dropped blocks add {}\n",
             ranked.model.display_name(), ranked.model.quantization(), Printable(set.corpus), set.protocol,
             set.n_windows, set.window_tokens, set.tokens_scored,
             set.ablation == Ablation::kMean ? "their mean" : "nothing");
  fmt::print("  {:<18} {:>8} {:>9} {:>9} {:>11} {:>9} {:>9}\n", "phase", "plans", "windows", "recalled", "GFLOP",
             "of naive", "seconds");
  for (const RankPhase& phase : ranked.summary.phases) {
    const std::string share =
        phase.naive_flops > 0 ? fmt::format("{:.1f} %", 100 * phase.flops / phase.naive_flops) : "";
    fmt::print("  {:<18} {:>8} {:>9} {:>9} {:>11.1f} {:>9} {:>9.1f}\n", phase.name, phase.plans, phase.windows,
               phase.recalled, phase.flops / 1e9, share, phase.seconds);
  }
  if (const Ranking* gsi = ranked.profile.FindRanking("gsi"); gsi != nullptr) {
    std::string order;
    for (const BlockId block : gsi->drop_order) {
      order += " " + BlockName(block);
    }
    fmt::print("gsi drops first:{}\n", order);
  }
  fmt::print("{} plans measured whole, in {} after {:.1f} s\n", ranked.summary.archive_rows,
             Printable(ranked.path, 4096), ranked.summary.seconds);
}

Result<RankOptions> ReadOptions(const RankFlags& o, const Windows& windows) {
  RankOptions options;
  ESPALIER_ASSIGN_OR_RETURN(options.engine, o.engine.Read(windows.window_tokens));
  ESPALIER_ASSIGN_OR_RETURN(options.ablation, ParseAblation(o.ablation));
  options.max_resident_blocks = o.resident_blocks;
  options.minutes = o.minutes;
  options.searches = o.searches;
  options.every_plan = o.every_plan;
  options.seed = o.seed;
  return options;
}

Result<RankSummary> RankInterruptibly(const std::shared_ptr<const Model>& model, const Windows& windows,
                                      const RankOptions& options, const MemoryModel& memory, ProfileStore* store) {
  RankBar bar;
  auto summary = [&] {
    const InterruptFlag interrupted;
    return Rank(model, windows, memory, options, store, interrupted.get(),
                [&bar](const RankProgress& p) { bar.Show(p); });
  }();
  bar.Finish();
  return summary;
}

Status RunRank(const RankFlags& o) {
  ESPALIER_ASSIGN_OR_RETURN(const auto model, o.model.Open());
  ESPALIER_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::Open(*model));
  ESPALIER_ASSIGN_OR_RETURN(const Windows windows, o.text.Read(*model, *tokenizer));
  ESPALIER_ASSIGN_OR_RETURN(const RankOptions options, ReadOptions(o, windows));
  ESPALIER_ASSIGN_OR_RETURN(const EngineOptions serving, o.engine.Read(model->hparams().n_ctx_train));
  ESPALIER_ASSIGN_OR_RETURN(const MemoryModel memory, MeasureMemoryModel(model, serving));
  const std::string path = o.output.empty() ? model->path() + ".profile" : o.output;

  std::vector<std::string> warnings;
  ESPALIER_ASSIGN_OR_RETURN(const auto store, ProfileStore::Open(path, *model, &warnings));
  PlanEvaluatorOptions measured;
  measured.engine = options.engine;
  measured.ablation = options.ablation;
  const MeasurementSet set = DescribeSet(windows, measured);
  for (std::string& overlap : NoteText(*store, windows, set)) {
    warnings.push_back(std::move(overlap));
  }
  std::for_each(warnings.begin(), warnings.end(), Warn);
  ESPALIER_RETURN_IF_ERROR(store->Save());

  auto summary = RankInterruptibly(model, windows, options, memory, store.get());
  ESPALIER_RETURN_IF_ERROR(store->Save());
  if (!summary.ok() && summary.status().code() == ErrorCode::kAborted) {
    fmt::print(stderr, "espalier: stopped; what was measured is in {}, and the same command goes on from there\n",
               Printable(path, 4096));
  }
  ESPALIER_RETURN_IF_ERROR(summary.status());
  const Ranked ranked = {*model, path, set, store->profile(), std::move(*summary), std::move(warnings)};
  if (o.json) {
    PrintJson(ReportOf(ranked));
  } else {
    PrintText(ranked);
  }
  return Status::Ok();
}

}  // namespace

void AddRankCommand(CLI::App& app, std::vector<Command>& commands) {
  auto* rank = app.add_subcommand("rank", "Measure what blocks are worth, into the model's profile");
  rank->footer(
      "Measures the loss (KL divergence from the dense model) of many plans: Greedy Sequential Importance, one-shot, "
      "an\n"
      "order for each of six KV sizes, swaps around them; and the published orders shortgpt, mha-drop, ffn-skip, "
      "random.\n"
      "run, eval and memory then choose plans by what was measured: --profile PROFILE --memory-budget BUDGET.\n\n"
      "Examples:\n"
      "  espalier rank reference --text calibration.txt\n"
      "  espalier rank model.gguf --text calibration.txt -o model.profile --minutes 30\n"
      "  espalier rank model.gguf --text calibration.txt --resident-blocks 1 --windows 8 -c 512 --json\n");
  AddCommand<RankFlags>(rank, commands, BindRank, RunRank);
}

}  // namespace espalier
