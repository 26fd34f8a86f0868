// espalier replay: a load trace against the engine loop, without HTTP.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/file.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/number_check.h"
#include "cli/progress.h"
#include "cli/replay_report.h"
#include "cli/serving_setup.h"
#include "cli/terminal.h"
#include "cli/text_option.h"
#include "cli/trace_file.h"

namespace espalier {
namespace {

struct ReplayFlags {
  std::string trace;
  ServingFlags serving;
  std::string text;
  double speed = 1;
  bool real_time = false;
  double late_seconds = ReplayOptions().late_seconds;
  double drain_seconds = ReplayOptions().drain_seconds;
  std::optional<double> good_loss;
  std::string html;
  bool json = false;
};

void BindReplay(CLI::App& app, ReplayFlags& o) {
  app.add_option("TRACE", o.trace, "Load trace: JSON Lines, as espalier generate-trace writes them")->required();
  AddServingFlags(app, o.serving);
  app.add_option("--text", o.text, "Text to cut prompts from; without it they are tokens drawn at random");
  app.add_flag("--realtime", o.real_time, "Sleep while nothing is to be done, instead of skipping the time");
  app.add_option("--speed", o.speed, "Seconds of the trace per second: 2 has requests come twice as fast")
      ->check(InRange(1e-3, 1e6))
      ->capture_default_str();
  app.add_option("--late", o.late_seconds, "Seconds after which a first token is late")
      ->check(AtLeast(0.0))
      ->capture_default_str();
  app.add_option("--drain", o.drain_seconds, "Seconds that requests have to end after the trace's end")
      ->check(InRange(0.0, kMaxTraceSeconds))
      ->capture_default_str();
  app.add_option("--good-loss", o.good_loss,
                 "Goodput counts tokens of a predicted loss of at most so many nats; default: --max-loss, else all")
      ->check(AtLeast(0.0));
  app.add_option("--html", o.html, "Write a page with the run's course to this file");
  AddJsonFlag(app, o.json);
}

// What holds until the trace's first budget, if --memory-budget does not say. Without a limit no policy could prune
// later, so a trace with budgets starts at one.
std::optional<Budget> InitialBudget(const LoadTrace& trace) {
  if (trace.budgets.empty()) {
    return std::nullopt;
  }
  return trace.budgets.front().seconds == 0 ? trace.budgets.front().budget : Budget::Percent(100);
}

// A budget that the trace starts with goes before the flag's, which it ends at once.
ServingFlags FlagsFor(const ReplayFlags& o, const LoadTrace& trace) {
  ServingFlags flags = o.serving;
  if (!trace.budgets.empty() && trace.budgets.front().seconds == 0) {
    flags.budget.text.clear();
  }
  return flags;
}

Result<PromptSource> ReadPrompts(const ReplayFlags& o, const Tokenizer& tokenizer) {
  PromptSource source;
  source.n_vocab = tokenizer.n_vocab();
  source.first_token = tokenizer.adds_bos() ? tokenizer.bos() : -1;
  if (!o.text.empty()) {
    constexpr uint64_t kMaxTextBytes = 256 * kMiB;
    ESPALIER_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(o.text, kMaxTextBytes));
    ESPALIER_ASSIGN_OR_RETURN(source.corpus, tokenizer.Encode(text, false, false));
    if (source.corpus.empty()) {
      return InvalidArgument(fmt::format("{}: no tokens to make prompts of", o.text));
    }
  }
  return source;
}

Result<ReplayReport> Play(const ReplayedRun& run, const ServingSetup& setup, ReplayOptions options) {
  std::unique_ptr<ReplayClock> clock;
  if (run.real_time) {
    clock = std::make_unique<RealClock>();
  } else {
    clock = std::make_unique<SkippingClock>();
  }
  TraceLimit limit(setup.placement.limit_bytes());
  EngineLoop::Parts loop_parts = setup.LoopParts();
  loop_parts.limit = limit.Reader();
  loop_parts.clock = clock.get();
  const std::unique_ptr<EngineLoop> loop = EngineLoop::Create(loop_parts, setup.loop);

  ReplayParts parts;
  parts.loop = loop.get();
  parts.clock = clock.get();
  parts.limit = &limit;
  parts.base = setup.placement.survey.base;
  parts.make_sampler = [&setup](uint64_t seed) {
    SamplerOptions sampling;
    // Answers are as long as the trace says, whatever the model would say.
    sampling.ignore_eos = true;
    sampling.seed = static_cast<uint32_t>(seed % SamplerOptions::kRandomSeed);
    return Sampler::Create(*setup.tokenizer, sampling);
  };
  ProgressBar progress("replaying");
  options.progress = [&](double seconds, const LoopSnapshot& now) {
    const auto ms = [](double s) { return static_cast<uint64_t>(1e3 * s); };
    progress.Update(
        ms(seconds), ms(run.trace.duration_seconds),
        fmt::format("{} running, {} waiting, {:.1f} tok/s", now.running, now.waiting, now.tokens_per_second));
  };
  const InterruptFlag interrupted;
  options.stop = interrupted.get();
  return Replay(run.trace, parts, options);
}

Status Show(const ReplayFlags& o, const ReplayedRun& run) {
  if (!o.html.empty()) {
    ESPALIER_RETURN_IF_ERROR(WriteWholeFile(o.html, ToHtml(run)));
  }
  if (o.json) {
    PrintJson(ToJson(run));
  } else {
    PrintText(run);
  }
  return run.report.stopped ? Aborted("stopped by the user") : Status::Ok();
}

Status RunReplay(const ReplayFlags& o) {
  if (!o.html.empty()) {
    // Known before the run, which may take an hour; nothing is left behind.
    ESPALIER_RETURN_IF_ERROR(AtomicFileWriter::Create(o.html).status());
  }
  ReplayedRun run;
  run.trace_path = o.trace;
  ESPALIER_ASSIGN_OR_RETURN(run.trace, ReadTraceFile(o.trace));
  const ServingFlags flags = FlagsFor(o, run.trace);
  ESPALIER_ASSIGN_OR_RETURN(const ServingSetup setup, SetUpServing(flags, InitialBudget(run.trace)));
  AnnouncePlacement(setup.placement);
  run.model = setup.model.get();
  run.placement = &setup.placement;
  run.loop = setup.loop;
  run.speed = o.speed;
  run.real_time = o.real_time;
  run.late_seconds = o.late_seconds;
  run.good_loss = o.good_loss ? o.good_loss : flags.policy.max_loss;
  ReplayOptions options;
  ESPALIER_ASSIGN_OR_RETURN(options.prompts, ReadPrompts(o, *setup.tokenizer));
  options.speed = o.speed;
  options.late_seconds = o.late_seconds;
  options.drain_seconds = o.drain_seconds;
  options.good_loss = run.good_loss.value_or(std::numeric_limits<double>::infinity());
  ESPALIER_ASSIGN_OR_RETURN(run.report, Play(run, setup, std::move(options)));
  return Show(o, run);
}

}  // namespace

void AddReplayCommand(CLI::App& app, std::vector<Command>& commands) {
  auto* replay = app.add_subcommand("replay", "Play a load trace with a budget that moves, and tell how it went");
  replay->footer(
      "Examples:\n"
      "  espalier generate-trace --arrivals bursty --budget sawtooth --seconds 600 --seed 1 -o trace.jsonl\n"
      "  espalier replay trace.jsonl reference --html run.html\n"
      "  espalier replay trace.jsonl model.gguf --profile model.profile --policy table --max-loss 0.5 -np 8 --json\n");
  AddCommand<ReplayFlags>(replay, commands, BindReplay, RunReplay);
}

}  // namespace espalier
