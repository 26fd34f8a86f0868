// espalier run: a prompt is answered, inside a budget that may change meanwhile.
#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/file.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/number_check.h"
#include "cli/options.h"
#include "cli/placement.h"
#include "cli/run_display.h"
#include "cli/text_option.h"
#include "control/budget_schedule.h"
#include "control/generation.h"
#include "text/sampler.h"
#include "text/tokenizer.h"

namespace espalier {
namespace {

struct RunOptions {
  ModelOption model;
  std::string prompt;
  std::string prompt_file;
  bool chat = false;
  BudgetOption budget;
  std::string schedule;
  PlanOptions plan;
  PolicyFlags policy;
  EngineFlags engine;
  SamplingFlags sampling;
  int64_t n_predict = -1;
  int64_t n_ctx = 0;
  int64_t n_batch = 512;
  RunDisplayOptions display;
};

void BindRun(CLI::App& app, RunOptions& o) {
  AddModelOption(app, o.model);
  auto* prompt = app.add_option("-p,--prompt", o.prompt, "Text to go on from");
  app.add_option("-f,--file", o.prompt_file, "File with the text to go on from")->excludes(prompt);
  app.add_flag("--chat", o.chat, "Hand the prompt over as a user's message, in the model's chat template");
  auto* budget = AddBudgetOption(app, o.budget);
  app.add_option("--budget-schedule", o.schedule,
                 "Budgets that change while text is generated: TOKEN:BUDGET,... such as 0:100%,48:60%,96:100%")
      ->excludes(budget);
  AddPlanOptions(app, o.plan);
  app.add_option("-n,--predict,--n-predict", o.n_predict, "Tokens to generate; -1: until the text or the context ends")
      ->check(InRange(int64_t{-1}, int64_t{1} << 31))
      ->capture_default_str();
  AddContextOption(app, o.n_ctx);
  app.add_option("-b,--batch-size", o.n_batch, "Prompt tokens handed to the engine at once")
      ->check(AtLeast(1))
      ->capture_default_str();
  AddPolicyFlags(app, o.policy);
  AddEngineFlags(app, o.engine);
  AddSamplingFlags(app, o.sampling);
  app.add_flag("--no-display", o.display.no_panel, "Plain text, even on a terminal");
  app.add_option("--pace", o.display.max_tokens_per_second, "Tokens per second at most, to watch the display; 0: off")
      ->check(AtLeast(0.0));
  AddJsonFlag(app, o.display.json);
}

Result<std::string> ReadPrompt(const RunOptions& o, const Model& model) {
  std::string prompt = o.prompt;
  if (!o.prompt_file.empty()) {
    constexpr uint64_t kMaxPromptBytes = 64 * kMiB;
    ESPALIER_ASSIGN_OR_RETURN(prompt, ReadTextFile(o.prompt_file, kMaxPromptBytes));
  }
  if (prompt.empty()) {
    return InvalidArgument("no prompt: expected -p TEXT or -f FILE");
  }
  if (o.chat) {
    const ChatMessage message = {"user", prompt};
    if (!HasChatTemplate(model)) {
      fmt::print(stderr, "espalier: {} has no chat template: the prompt is rendered as ChatML\n", model.path());
    }
    return ApplyChatTemplate(model, {&message, 1}, true);
  }
  return prompt;
}

// KV cells: what -c asks for; else what prompt and -n need, or 4096 where -n leaves it open, within what the model was
// trained for. Not simply the training context: 128 Ki cells of a small new model take more memory than its weights.
Result<int64_t> ChooseContext(const RunOptions& o, const Model& model, int64_t prompt_tokens) {
  constexpr int64_t kDefault = 4096;
  const int64_t trained = model.hparams().n_ctx_train;
  int64_t n_ctx = o.n_ctx;
  if (n_ctx == 0) {
    n_ctx = std::min(trained, o.n_predict >= 0 ? prompt_tokens + o.n_predict : std::max(kDefault, 2 * prompt_tokens));
  }
  ESPALIER_RETURN_IF_ERROR(CheckContext(model, n_ctx));
  if (prompt_tokens > n_ctx) {
    return InvalidArgument(fmt::format("prompt of {} tokens: the context holds {} (model {}: at most {})",
                                       prompt_tokens, n_ctx, model.path(), trained));
  }
  return n_ctx;
}

// The budget to start with, and the changes to come.
struct BudgetPlan {
  std::optional<Budget> initial;
  std::vector<ScheduledBudget> changes;
};

Result<BudgetPlan> ReadBudgets(const RunOptions& o) {
  BudgetPlan plan;
  ESPALIER_ASSIGN_OR_RETURN(plan.initial, o.budget.Read());
  if (!o.schedule.empty()) {
    ESPALIER_ASSIGN_OR_RETURN(plan.changes, ParseBudgetSchedule(o.schedule));
    plan.initial = Budget::Percent(100);
    if (plan.changes.front().at_token == 0) {
      plan.initial = plan.changes.front().budget;
      plan.changes.erase(plan.changes.begin());
    }
  }
  return plan;
}

// Every budget of the schedule must be one that can be met, before the first token is generated.
Result<std::vector<LimitChange>> ResolveChanges(const Placement& placement,
                                                const std::vector<ScheduledBudget>& changes) {
  std::vector<LimitChange> limits;
  for (const ScheduledBudget& change : changes) {
    const Observation observation = placement.survey.Observe(change.budget);
    ESPALIER_RETURN_IF_ERROR(placement.policy->Decide(observation).status());
    limits.push_back({change.at_token, observation.limit_bytes});
  }
  return limits;
}

struct Finished {
  GenerationStatistics statistics;
  MemoryAccount account;
  Footprint predicted;
  Plan plan;
  uint32_t seed = 0;
};

void PrintSummary(const Finished& run) {
  const GenerationStatistics& s = run.statistics;
  fmt::print(stderr,
             "espalier: {} prompt tokens at {:.1f} tok/s, {} generated at {:.1f} tok/s, {}; managed {} (predicted {}, "
             "kernel {}), process {}\n",
             s.prompt_tokens, s.prefill_tokens_per_second(), s.generated_tokens, s.decode_tokens_per_second(),
             StopReasonName(s.stop), FormatBytes(run.account.managed.total()),
             FormatBytes(run.predicted.managed_bytes()), FormatBytes(run.account.measured_managed_bytes()),
             FormatBytes(run.account.process_bytes));
}

Json ReportOf(const Model& model, const Placement& placement, const Finished& run, const RunDisplay& display) {
  const GenerationStatistics& s = run.statistics;
  Json report;
  report["model"] = ModelJson(model);
  report["text"] = display.text();
  report["stop_reason"] = StopReasonName(s.stop);
  report["prompt_tokens"] = s.prompt_tokens;
  report["generated_tokens"] = s.generated_tokens;
  report["seed"] = run.seed;
  report["prefill_ms"] = s.prefill_ms;
  report["decode_ms"] = s.decode_ms;
  report["prefill_tokens_per_second"] = s.prefill_tokens_per_second();
  report["decode_tokens_per_second"] = s.decode_tokens_per_second();
  report["workload"] = ToJson(placement.survey.workload);
  AddPlacement(report, placement);
  report["dense_peak_bytes"] = placement.survey.base.dense_peak_bytes;
  report["plan_at_end"] = ToJson(run.plan);
  report["predicted_managed_bytes"] = run.predicted.managed_bytes();
  report.update(ToJson(run.account));
  report["peak_used_bytes"] = s.peak_used_bytes;
  report["budget_violations"] = s.violations;
  report["transition_ms"] = s.transition_ms;
  report["reprefills"] = s.reprefills;
  Json transitions = Json::array();
  for (const TransitionEvent& event : display.transitions()) {
    transitions.push_back(ToJson(event));
  }
  report["transitions"] = transitions;
  return report;
}

Status Run(const RunOptions& o) {
  ESPALIER_ASSIGN_OR_RETURN(const BudgetPlan budgets, ReadBudgets(o));
  ESPALIER_ASSIGN_OR_RETURN(SamplerOptions sampling, o.sampling.Read());
  ESPALIER_ASSIGN_OR_RETURN(const auto model, o.model.Open());
  ESPALIER_ASSIGN_OR_RETURN(const std::string prompt, ReadPrompt(o, *model));
  ESPALIER_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::Open(*model));
  GenerationOptions generation_options;
  ESPALIER_ASSIGN_OR_RETURN(generation_options.prompt, tokenizer->Encode(prompt, true, o.chat));
  if (generation_options.prompt.empty()) {
    return InvalidArgument("the prompt has no tokens");
  }
  const auto prompt_tokens = static_cast<int64_t>(generation_options.prompt.size());
  ESPALIER_ASSIGN_OR_RETURN(const int64_t n_ctx, ChooseContext(o, *model, prompt_tokens));
  FitToContext(n_ctx, &sampling);
  ESPALIER_ASSIGN_OR_RETURN(const auto sampler, Sampler::Create(*tokenizer, sampling));
  const Workload workload = Workload::Uniform(1, n_ctx);
  ESPALIER_ASSIGN_OR_RETURN(EngineOptions engine_options, o.engine.Read(workload));
  ESPALIER_ASSIGN_OR_RETURN(ProfileInUse profile, OpenProfile(o.policy, *model));
  engine_options.means = profile.means;
  ESPALIER_ASSIGN_OR_RETURN(
      Placement placement,
      Place(model, engine_options, workload, PlacementRequest{o.plan, budgets.initial, o.policy, std::move(profile)}));
  ESPALIER_RETURN_IF_ERROR(ResolveChanges(placement, budgets.changes).status());
  // The token after the last that fits needs no cell of its own.
  const int64_t room = n_ctx - prompt_tokens + 1;
  generation_options.max_tokens = o.n_predict >= 0 ? o.n_predict : room;
  generation_options.prefill_chunk = o.n_batch;
  AnnouncePlacement(placement);

  ESPALIER_ASSIGN_OR_RETURN(const auto engine, Engine::Create(model, engine_options, placement.plan));
  placement.survey.Adopt(engine->memory_model());
  ESPALIER_ASSIGN_OR_RETURN(generation_options.limits, ResolveChanges(placement, budgets.changes));
  Controller controller(*engine, *placement.policy,
                        {.workload = placement.survey.workload,
                         .process_bytes = placement.survey.base.process_bytes,
                         .limit_bytes = placement.limit_bytes()});
  Generation generation(*engine, *tokenizer, *sampler, controller);
  RunDisplayOptions display_options = o.display;
  display_options.title = fmt::format("{} {}", model->display_name(), model->quantization());
  display_options.prompt = prompt;
  const auto display = RunDisplay::Create(placement, display_options);
  Result<GenerationStatistics> statistics = [&] {
    const InterruptGuard guard([](void* running) { static_cast<Generation*>(running)->RequestAbort(); }, &generation);
    return generation.Run(generation_options, *display);
  }();
  display->Finish();
  ESPALIER_RETURN_IF_ERROR(statistics.status());

  Finished finished;
  finished.statistics = *statistics;
  finished.predicted = PredictNow(*engine);
  finished.plan = engine->plan();
  finished.seed = sampler->seed();
  ESPALIER_ASSIGN_OR_RETURN(finished.account, TakeMemoryAccount(*engine, controller.process_bytes()));
  if (o.display.json) {
    PrintJson(ReportOf(*model, placement, finished, *display));
  } else {
    PrintSummary(finished);
  }
  return statistics->stop == StopReason::kAborted ? Aborted("stopped by the user") : Status::Ok();
}

}  // namespace

void AddRunCommand(CLI::App& app, std::vector<Command>& commands) {
  auto* run = app.add_subcommand("run", "Answer a prompt within a memory budget");
  run->footer(
      "Examples:\n"
      "  espalier run -p \"The old house stood\" -n 64\n"
      "  espalier run model.gguf -p \"Once\" --memory-budget 70%\n"
      "  espalier run -p \"Once\" -n 160 --budget-schedule 0:100%,48:60%,96:100% --pace 20\n"
      "  espalier run model.gguf -p \"Once\" --memory-budget 70% --profile model.profile --max-loss 0.5\n"
      "  espalier run -p \"Once\" --drop a3,f7 --json\n");
  AddCommand<RunOptions>(run, commands, BindRun, Run);
}

}  // namespace espalier
