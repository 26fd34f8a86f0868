#include "cli/options.h"

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "base/file.h"
#include "cli/number_check.h"
#include "cli/plan_file.h"
#include "runtime/device.h"
#include "text/gbnf.h"

namespace espalier {
namespace {

constexpr std::array<std::pair<std::string_view, std::string_view>, 2> kBundledModels = {
    {{"reference", "espalier-reference-f16.gguf"}, {"twin", "espalier-twin-f16.gguf"}}};

std::string ModelFolder() {
  const char* folder = std::getenv("ESPALIER_MODEL_DIR");
  return folder != nullptr && *folder != '\0' ? folder : ESPALIER_MODEL_DIR;
}

}  // namespace

std::string ModelOption::Path() const {
  for (const auto& [bundled, file] : kBundledModels) {
    if (name == bundled) {
      return fmt::format("{}/{}", ModelFolder(), file);
    }
  }
  return name;
}

Result<std::shared_ptr<const Model>> ModelOption::Open() const {
  if (name.empty()) {
    return InvalidArgument("MODEL: expected a GGUF file, reference or twin, found an empty name");
  }
  return Model::Open(Path());
}

void AddModelOption(CLI::App& app, ModelOption& option) {
  app.add_option("MODEL", option.name,
                 "GGUF file (the first, where the model is in several), or one of the bundled models: reference, twin")
      ->capture_default_str();
}

Result<Plan> PlanOptions::Read(int n_layer) const {
  if (!drop.empty()) {
    return Plan::ParseDrop(drop, n_layer);
  }
  if (!plan.empty()) {
    return ReadPlan(plan, n_layer);
  }
  return Plan::Dense(n_layer);
}

void AddPlanOptions(CLI::App& app, PlanOptions& options) {
  auto* drop = app.add_option("--drop", options.drop, "Blocks to drop: a3,f7 (attention of layer 3, FFN of layer 7)");
  auto* plan = app.add_option("--plan", options.plan,
                              "Plan: text such as 'a3=0 f7=0', or a file with it or with {\"keep\": {\"a3\": 0}}");
  plan->excludes(drop);
  // The one that is on the command line counts, whatever the environment says of the other.
  for (const auto& [given, other] : {std::pair{drop, plan}, std::pair{plan, drop}}) {
    given->trigger_on_parse();
    given->each([other = other](const std::string&) { other->envname(""); });
  }
}

Result<std::optional<Budget>> BudgetOption::Read() const {
  if (text.empty()) {
    return std::optional<Budget>();
  }
  ESPALIER_ASSIGN_OR_RETURN(const Budget budget, Budget::Parse(text));
  return std::optional<Budget>(budget);
}

CLI::Option* AddBudgetOption(CLI::App& app, BudgetOption& option) {
  return app.add_option("--memory-budget", option.text,
                        "Limit on the memory of model and process: 700MiB; or 70% of what the dense model needs, "
                        "beside the process. Without a plan, blocks are dropped until the model fits");
}

Result<EngineOptions> EngineFlags::Read(int64_t n_ctx) const {
  if (flash_attn == "off" || flash_attn == "0") {
    return InvalidArgument("-fa off: expected on or auto; attention is always computed in the fused way");
  }
  EngineOptions options;
  options.device = device;
  if (gpu_layers > 0 && device.empty()) {
    options.device = FirstGpu();
    if (options.device.empty()) {
      fmt::print(stderr, "espalier: -ngl {}: no GPU was found, the CPU computes\n", gpu_layers);
    }
  }
  options.n_threads = n_threads;
  options.n_ctx = n_ctx;
  options.n_ubatch = static_cast<int>(std::min<int64_t>(n_ubatch, n_ctx));
  ESPALIER_ASSIGN_OR_RETURN(options.key_type, ParseKvType(key_type));
  ESPALIER_ASSIGN_OR_RETURN(options.value_type, ParseKvType(value_type));
  options.repack = !no_repack;
  options.copy_tied_head = copy_tied_head;
  options.drop_page_cache = drop_page_cache;
  return options;
}

Result<EngineOptions> EngineFlags::Read(const Workload& workload) const {
  ESPALIER_ASSIGN_OR_RETURN(EngineOptions options, Read(workload.kv_cells));
  options.max_sequences = workload.n_sequences;
  return options;
}

void AddEngineFlags(CLI::App& app, EngineFlags& flags) {
  const char* const kGroup = "Engine";
  app.add_option("-t,--threads", flags.n_threads, "Threads; 0: all cores")->capture_default_str()->group(kGroup);
  app.add_option("--ubatch-size", flags.n_ubatch, "Tokens of one graph at most (also -ub)")
      ->check(InRange(1, 65536))
      ->capture_default_str()
      ->group(kGroup);
  app.add_option("--cache-type-k", flags.key_type, "KV cache type of keys: f16, q8_0, q4_0 (also -ctk)")
      ->capture_default_str()
      ->group(kGroup);
  app.add_option("--cache-type-v", flags.value_type, "KV cache type of values: f16, q8_0, q4_0 (also -ctv)")
      ->capture_default_str()
      ->group(kGroup);
  app.add_option("--gpu-layers,--n-gpu-layers", flags.gpu_layers,
                 "More than 0: the first GPU computes, all layers of it, if there is one (also -ngl)")
      ->check(AtLeast(0))
      ->capture_default_str()
      ->group(kGroup);
  app.add_option("--flash-attn", flags.flash_attn,
                 "on (1) or auto; taken for llama.cpp's sake, there is no other (also -fa)")
      ->check(CLI::IsMember({"on", "off", "auto", "1", "0"}))
      ->expected(0, 1)
      ->default_str("on")
      ->group(kGroup);
  app.add_option("--device", flags.device, "Device by ggml's name, such as CPU, CUDA0 or RPC:HOST:PORT")->group(kGroup);
  app.add_flag("--no-repack", flags.no_repack, "Keep weights as they lie in the file")->group(kGroup);
  app.add_flag("--copy-tied-head", flags.copy_tied_head, "Second, repacked copy of a tied output head, as in libllama")
      ->group(kGroup);
  app.add_flag("--drop-page-cache", flags.drop_page_cache,
               "Leave no second copy of the weights in the page cache; blocks then return from disk")
      ->group(kGroup);
}

void AddContextOption(CLI::App& app, int64_t& n_ctx) {
  app.add_option("-c,--ctx-size", n_ctx, "Context in tokens; 0: what is needed, within what the model was trained for")
      ->check(AtLeast(0))
      ->capture_default_str();
}

Status CheckContext(const Model& model, int64_t tokens) {
  if (tokens > model.hparams().n_ctx_train) {
    return InvalidArgument(fmt::format("context of {} tokens: {} was trained for at most {}", tokens, model.path(),
                                       model.hparams().n_ctx_train));
  }
  return Status::Ok();
}

Result<SamplerOptions> SamplingFlags::Read() const {
  SamplerOptions read = options;
  read.seed = seed < 0 ? SamplerOptions::kRandomSeed : static_cast<uint32_t>(seed);
  if (!grammar_file.empty()) {
    constexpr uint64_t kMaxGrammarBytes = 16 << 20;
    ESPALIER_ASSIGN_OR_RETURN(read.grammar, ReadWholeFile(grammar_file, kMaxGrammarBytes));
    // Before a model is loaded, so without its tokens; Sampler::Create looks again.
    const Status status = CheckGbnf(read.grammar, [](std::string_view) { return true; });
    if (!status.ok()) {
      return InvalidArgument(fmt::format("--grammar-file {}: {}", grammar_file, status.message()));
    }
  }
  return read;
}

void AddSamplingFlags(CLI::App& app, SamplingFlags& flags) {
  SamplerOptions& o = flags.options;
  const auto add = [&app](const char* name, auto& value, const CLI::Validator& check, const char* text) {
    app.add_option(name, value, text)->check(check)->capture_default_str()->group("Sampling (as in llama.cpp)");
  };
  // The ranges of the API's fields: what a flag sets is the default of each of them.
  constexpr double kWide = 1000;
  add("--temp,--temperature", o.temperature, InRange(-1.0, kWide), "Temperature; 0: always the likeliest token");
  add("--top-k", o.top_k, InRange(-1, INT32_MAX), "0: off");
  add("--top-p", o.top_p, InRange(0.0, 1.0), "1: off");
  add("--min-p", o.min_p, InRange(0.0, 1.0), "0: off");
  add("--typical,--typical-p", o.typical_p, InRange(0.0, 1.0), "1: off");
  add("--repeat-penalty", o.repeat_penalty, InRange(1 / kWide, kWide), "1: off");
  add("--repeat-last-n", o.repeat_last_n, InRange(-1, 1 << 20), "Tokens that penalties look at; 0: off; -1: context");
  add("--presence-penalty", o.presence_penalty, InRange(-kWide, kWide), "0: off");
  add("--frequency-penalty", o.frequency_penalty, InRange(-kWide, kWide), "0: off");
  app.add_option("-s,--seed", flags.seed, "-1: another one each time")
      ->check(InRange(int64_t{-1}, int64_t{0xFFFFFFFE}))
      ->capture_default_str()
      ->group("Sampling (as in llama.cpp)");
  app.add_option("--grammar-file", flags.grammar_file, "GBNF grammar that the text must follow")
      ->group("Sampling (as in llama.cpp)");
  app.add_flag("--ignore-eos", o.ignore_eos, "Go on where the model would end the text")
      ->group("Sampling (as in llama.cpp)");
}

void AddJsonFlag(CLI::App& app, bool& json) {
  app.add_flag("--json", json, "One JSON object on standard output, and nothing else there");
}

}  // namespace espalier
