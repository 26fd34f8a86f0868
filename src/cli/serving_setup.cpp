#include "cli/serving_setup.h"
#include "cli/number_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <utility>

namespace espalier {
namespace {

const char* const kGroup = "Serving";

template <class Value, class Check>
void AddLoopFlag(CLI::App& app, const char* name, Value& value, const Check& check, const char* text) {
  app.add_option(name, value, text)->check(check)->capture_default_str()->group(kGroup);
}

// KV cells of each request.
Result<int64_t> CellsPerRequest(const ServingFlags& flags, const Model& model) {
  constexpr int64_t kDefault = 4096;
  const int64_t trained = model.hparams().n_ctx_train;
  if (flags.n_ctx == 0) {
    return std::min(trained, kDefault);
  }
  if (flags.n_ctx < flags.n_parallel) {
    return InvalidArgument(fmt::format("context of {} tokens for {} requests at once: expected at least one for each",
                                       flags.n_ctx, flags.n_parallel));
  }
  const int64_t cells = flags.n_ctx / flags.n_parallel;
  if (cells > trained) {  // llama-server's way: command lines are copied from model to model
    fmt::print(stderr, "espalier: warning: -c {} for {} requests at once: {} tokens each, as {} was trained for\n",
               flags.n_ctx, flags.n_parallel, trained, model.path());
  }
  return std::min(cells, trained);
}

LoopOptions LoopOptionsOf(const ServingFlags& flags, int64_t cells_per_request) {
  LoopOptions loop = flags.loop;
  loop.max_running = flags.n_parallel;
  loop.batch_tokens = std::max(flags.n_batch, flags.n_parallel);
  loop.cache_prompts = !flags.no_cache_prompt;
  loop.request_cells = cells_per_request;
  return loop;
}

}  // namespace

void AddServingFlags(CLI::App& app, ServingFlags& flags) {
  app.add_option("-m,--model,MODEL", flags.model.name, "GGUF file, or one of the bundled models: reference, twin")
      ->capture_default_str();
  AddBudgetOption(app, flags.budget);
  AddPlanOptions(app, flags.plan);
  AddPolicyFlags(app, flags.policy);
  constexpr int64_t kMaxCells = int64_t{1} << 27;
  AddLoopFlag(app, "-c,--ctx-size", flags.n_ctx, InRange(int64_t{0}, kMaxCells),
              "Context of all requests together, in tokens; each gets its share. 0: what the model was trained for, at "
              "most 4096, for each");
  AddLoopFlag(app, "--parallel", flags.n_parallel, InRange(1, 1024), "Requests in the engine at once (also -np)");
  AddLoopFlag(app, "-b,--batch-size", flags.n_batch, InRange(1, 1 << 20), "Tokens of one step at most");
  AddLoopFlag(app, "--prefill-ms", flags.loop.prefill_ms, InRange(1.0, 60000.0),
              "A step takes so many prompt tokens as are computed in about this time");
  AddLoopFlag(app, "--max-queue", flags.loop.max_waiting, InRange(0, 1 << 20),
              "Requests that may wait; beyond, they are refused");
  app.add_flag("--no-cache-prompt", flags.no_cache_prompt, "Do not keep KV of finished requests")->group(kGroup);
  AddLoopFlag(app, "--tick-ms", flags.loop.tick_ms, InRange(1.0, 60000.0), "Time between two looks at the limit");
  AddLoopFlag(app, "--grow-after-ms", flags.loop.grow_after_ms, InRange(0.0, 3.6e6),
              "Blocks return when the limit stayed clearly higher for so long");
  AddLoopFlag(app, "--settle-ms", flags.loop.settle_ms, InRange(0.0, 3.6e6), "Likewise when it stayed a little higher");
  AddEngineFlags(app, flags.engine);
}

EngineLoop::Parts ServingSetup::LoopParts() const {
  EngineLoop::Parts parts;
  parts.engine = engine.get();
  parts.tokenizer = tokenizer.get();
  parts.policy = placement.policy.get();
  parts.process_bytes = process_bytes;
  return parts;
}

Result<ServingSetup> SetUpServing(const ServingFlags& flags, const std::optional<Budget>& initial_budget) {
  ServingSetup setup;
  ESPALIER_ASSIGN_OR_RETURN(std::optional<Budget> budget, flags.budget.Read());
  ESPALIER_ASSIGN_OR_RETURN(setup.model, flags.model.Open());
  ESPALIER_ASSIGN_OR_RETURN(setup.tokenizer, Tokenizer::Open(*setup.model));
  ESPALIER_ASSIGN_OR_RETURN(const int64_t cells, CellsPerRequest(flags, *setup.model));
  const Workload most = Workload::Uniform(flags.n_parallel, cells);
  ESPALIER_ASSIGN_OR_RETURN(EngineOptions options, flags.engine.Read(most));
  if (options.device.empty()) {
    options.max_sequences *= 2;  // as many finished ones beside those that run
    options.max_sequence_cells = cells;
  }
  ESPALIER_ASSIGN_OR_RETURN(ProfileInUse profile, OpenProfile(flags.policy, *setup.model));
  options.means = profile.means;
  PlacementRequest request = {flags.plan, budget ? budget : initial_budget, flags.policy, std::move(profile)};
  ESPALIER_ASSIGN_OR_RETURN(setup.placement, Place(setup.model, options, most, std::move(request)));
  ESPALIER_ASSIGN_OR_RETURN(setup.engine, Engine::Create(setup.model, options, setup.placement.plan));
  setup.placement.survey.Adopt(setup.engine->memory_model());
  setup.process_bytes = setup.placement.survey.base.process_bytes;
  setup.loop = LoopOptionsOf(flags, cells);
  return setup;
}

}  // namespace espalier
