// espalier generate-model: a model of random weights, to test and to measure with.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "cli/command.h"
#include "cli/json.h"
#include "cli/number_check.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "model/architecture.h"
#include "model/quote.h"
#include "model/random_model.h"

namespace espalier {
namespace {

struct GenerateOptions {
  RandomModelOptions model;
  std::string output;
  int n_threads = 0;
  bool json = false;
};

void BindGenerate(CLI::App& app, GenerateOptions& o) {
  RandomModelOptions& m = o.model;
  const auto add = [&app](const char* name, auto& value, const char* text) {
    return app.add_option(name, value, text)->capture_default_str();
  };
  app.add_option("-o,--output", o.output, "GGUF file to write")->required();
  add("--arch", m.architecture, fmt::format("Architecture: {}", ArchitectureNames()).c_str());
  add("--layers", m.n_layer, "Layers; each has an attention and an FFN block");
  add("--embedding-length", m.n_embd, "Width of the model");
  add("--feed-forward-length", m.n_ff, "Width of the FFN");
  add("--heads", m.n_head, "Attention heads");
  add("--kv-heads", m.n_head_kv, "KV heads; 0: as many as heads");
  add("--head-dim", m.head_dim, "Elements of a head; 0: embedding length / heads");
  add("--vocab", m.n_vocab, "Tokens of the vocabulary, at least 260");
  add("--ctx", m.n_ctx, "Context length in the metadata");
  add("--type", m.type, "Quantisation, by llama.cpp's names: F16, Q8_0, Q4_0, Q4_K_M, ...");
  add("--seed", m.seed, "The same options and seed give the same file");
  app.add_flag("--tied", m.tied_output, "No output head of its own: the token embedding is the head");
  app.add_flag("--biases", m.biases, "With every bias that the architecture may have; Qwen2 models have them");
  app.add_flag("--rope-freqs", m.rope_freq_factors, "With rope frequency factors, as in Llama 3.2");
  add("-t,--threads", o.n_threads, "Threads; 0: all cores")->check(InRange(0, 512));
  AddJsonFlag(app, o.json);
}

// Weights of the shape, in parameters. Doubles: a shape out of range must not overflow before it is refused.
double ParametersOf(const RandomModelOptions& m) {
  const double embd = m.n_embd;
  const double head_dim = m.head_dim > 0 ? m.head_dim : (m.n_head > 0 ? embd / m.n_head : 0);
  const double query = head_dim * m.n_head;
  const double key_value = head_dim * (m.n_head_kv > 0 ? m.n_head_kv : m.n_head);
  const double layer = embd * (2 * query + 2 * key_value + 3.0 * m.n_ff + 2);
  return layer * m.n_layer + embd * m.n_vocab * (m.tied_output ? 1 : 2) + embd;
}

Status CheckSize(const RandomModelOptions& m) {
  // The largest of the common shapes is Llama 3 8B, with 8.03e9; Llama 2 7B has 6.74e9.
  constexpr double kMaxParameters = 8.1e9;
  if (const double parameters = ParametersOf(m); parameters > kMaxParameters) {
    return InvalidArgument(fmt::format("model of {:.2f} billion parameters: expected a shape of up to {:.1f} billion",
                                       parameters / 1e9, kMaxParameters / 1e9));
  }
  return Status::Ok();
}

Status Generate(const GenerateOptions& o) {
  ESPALIER_RETURN_IF_ERROR(CheckSize(o.model));
  RandomModelOptions options = o.model;
  options.n_threads =
      o.n_threads > 0 ? o.n_threads : static_cast<int>(std::max(std::thread::hardware_concurrency(), 1u));
  Result<RandomModelSummary> summary = [&] {
    ProgressBar progress(fmt::format("writing {}", Printable(o.output, 40)));
    options.progress = [&](uint64_t done, uint64_t total) { progress.Update(done, total); };
    return GenerateRandomModel(options, o.output);
  }();
  ESPALIER_RETURN_IF_ERROR(summary.status());
  if (o.json) {
    PrintJson({{"path", o.output},
               {"type", o.model.type},
               {"seed", o.model.seed},
               {"parameters", summary->parameters},
               {"file_bytes", summary->file_bytes}});
  } else {
    fmt::print("{}: {:.2f} M parameters of random weights, {}\n", o.output,
               static_cast<double>(summary->parameters) / 1e6, FormatBytes(summary->file_bytes));
  }
  return Status::Ok();
}

}  // namespace

void AddGenerateModelCommand(CLI::App& app, std::vector<Command>& commands) {
  auto* generate = app.add_subcommand("generate-model", "Write a model of random weights, for tests and benchmarks");
  generate->footer(
      "Examples:\n"
      "  espalier generate-model --arch llama --layers 24 --embedding-length 1024 --feed-forward-length 2816 \\\n"
      "      --heads 16 --kv-heads 4 --vocab 32000 --type Q4_K_M --seed 1 -o random-300m.gguf\n");
  AddCommand<GenerateOptions>(generate, commands, BindGenerate, Generate);
}

}  // namespace espalier
