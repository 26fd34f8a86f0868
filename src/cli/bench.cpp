// espalier bench: prefill and decode, beside what this machine's memory can deliver, and beside libllama.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "cli/bench_residency.h"
#include "cli/command.h"
#include "cli/json.h"
#include "cli/number_check.h"
#include "cli/options.h"
#include "cli/placement.h"
#include "cli/progress.h"
#include "control/compare.h"
#include "control/measure.h"

namespace espalier {
namespace {

struct BenchOptions {
  ModelOption model;
  int64_t n_prompt = 512;
  int64_t n_generate = 64;
  int64_t depth = 0;
  int repetitions = 5;
  bool versus_libllama = false;
  std::string bandwidth_buffer;
  BudgetOption budget;
  PlanOptions plan;
  EngineFlags engine;
  bool json = false;
};

void BindBench(CLI::App& app, BenchOptions& o) {
  AddModelOption(app, o.model);
  app.add_option("-p,--n-prompt", o.n_prompt, "Tokens of the prefill; 0: none")
      ->check(InRange(int64_t{0}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("-n,--n-gen", o.n_generate, "Tokens to decode one by one; 0: none")
      ->check(InRange(int64_t{0}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("-d,--n-depth", o.depth, "Tokens in the context before the decoded ones")
      ->check(InRange(int64_t{0}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("-r,--repetitions", o.repetitions, "Repetitions; the median counts")
      ->check(InRange(1, 1000))
      ->capture_default_str();
  app.add_flag("--vs-libllama", o.versus_libllama, "Alternate with libllama in this process, and print the ratios");
  app.add_option("--bandwidth-buffer", o.bandwidth_buffer,
                 "Buffer whose reading measures the memory's bandwidth; default: four times the last cache");
  AddBudgetOption(app, o.budget);
  AddPlanOptions(app, o.plan);
  AddEngineFlags(app, o.engine);
  AddJsonFlag(app, o.json);
}

// A buffer several times the last cache, within a share of the memory that is free.
Result<uint64_t> BandwidthBufferBytes(const BenchOptions& o) {
  if (!o.bandwidth_buffer.empty()) {
    return ParseBytes(o.bandwidth_buffer);
  }
  const auto cache = static_cast<uint64_t>(std::max(::sysconf(_SC_LEVEL3_CACHE_SIZE), 0L));
  const auto free =
      static_cast<uint64_t>(std::max(::sysconf(_SC_AVPHYS_PAGES), 0L)) * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  return std::max(std::min({std::max(4 * cache, kGiB), 4 * kGiB, free / 2}), 64 * kMiB);
}

// One kind of work, in figures.
struct Speed {
  int64_t tokens = 0;
  Quartiles ms;
  double bytes_per_token = 0;  // read from memory
  double tokens_per_second() const { return 1000 * static_cast<double>(tokens) / ms.median; }
  double gigabytes_per_second() const { return tokens_per_second() * bytes_per_token / 1e9; }
};

struct BenchReport {
  Placement placement;
  double bandwidth = 0;  // bytes per second
  std::optional<Speed> prefill;
  std::optional<Speed> decode;
  std::optional<Comparison> versus;    // with libllama
  std::optional<PlanComparison> plan;  // with the dense plan
};

// Weights are read once for each graph of a prefill, and once for each decoded token.
double BytesPerPrefillToken(const Engine& engine, int64_t n_tokens) {
  const int64_t n_graphs = (n_tokens + engine.options().n_ubatch - 1) / engine.options().n_ubatch;
  return static_cast<double>(n_graphs) * static_cast<double>(BytesReadPerToken(engine, n_tokens / 2)) /
         static_cast<double>(n_tokens);
}

Result<Speed> Repeat(int repetitions, int64_t tokens, const std::function<Result<double>()>& once) {
  ESPALIER_RETURN_IF_ERROR(once().status());  // not counted: caches and thread pools warm up
  std::vector<double> ms;
  for (int i = 0; i < repetitions; ++i) {
    ESPALIER_ASSIGN_OR_RETURN(const double one, once());
    ms.push_back(one);
  }
  return Speed{.tokens = tokens, .ms = QuartilesOf(std::move(ms))};
}

Status MeasureSpeeds(Engine& engine, const BenchWork& work, int repetitions, BenchReport& report) {
  if (!work.prompt.empty()) {
    ESPALIER_ASSIGN_OR_RETURN(report.prefill, Repeat(repetitions, static_cast<int64_t>(work.prompt.size()),
                                                     [&] { return TimePrefill(engine, work.prompt); }));
    report.prefill->bytes_per_token = BytesPerPrefillToken(engine, report.prefill->tokens);
  }
  if (!work.decoded.empty()) {
    ESPALIER_ASSIGN_OR_RETURN(report.decode, Repeat(repetitions, static_cast<int64_t>(work.decoded.size()),
                                                    [&] { return TimeDecode(engine, work.prefix, work.decoded); }));
    const auto cells = static_cast<int64_t>(work.prefix.size() + work.decoded.size() / 2);
    report.decode->bytes_per_token = static_cast<double>(BytesReadPerToken(engine, cells));
  }
  return Status::Ok();
}

Result<BenchReport> MeasureAll(const BenchOptions& o, const std::shared_ptr<const Model>& model) {
  BenchWork work;
  const int32_t n_vocab = model->hparams().n_vocab;
  work.prompt = RandomTokens(o.n_prompt, n_vocab, 1);
  work.prefix = RandomTokens(std::max<int64_t>(o.depth, 1), n_vocab, 2);
  work.decoded = RandomTokens(o.n_generate, n_vocab, 3);
  const int64_t n_ctx = std::max<int64_t>(o.n_prompt, static_cast<int64_t>(work.prefix.size()) + o.n_generate);
  ESPALIER_RETURN_IF_ERROR(CheckContext(*model, n_ctx));
  ESPALIER_ASSIGN_OR_RETURN(const EngineOptions options, o.engine.Read(n_ctx));
  ESPALIER_ASSIGN_OR_RETURN(const auto budget, o.budget.Read());
  BenchReport report;
  ESPALIER_ASSIGN_OR_RETURN(report.placement, Place(model, options, Workload::Uniform(1, n_ctx), {o.plan, budget}));
  AnnouncePlacement(report.placement);
  ESPALIER_ASSIGN_OR_RETURN(const uint64_t buffer_bytes, BandwidthBufferBytes(o));
  ESPALIER_ASSIGN_OR_RETURN(report.bandwidth, MeasureReadBandwidth(buffer_bytes, options.n_threads));
  if (o.versus_libllama) {
    ESPALIER_RETURN_IF_ERROR(CheckAgainstLibllama(model, options, work.prompt));
  }
  ESPALIER_ASSIGN_OR_RETURN(const auto engine, Engine::Create(model, options, report.placement.plan));
  ESPALIER_RETURN_IF_ERROR(MeasureSpeeds(*engine, work, o.repetitions, report));
  ProgressBar bar("comparing");
  const CompareOptions compare = {.pairs = o.repetitions, .progress = [&bar](int done, int total) {
                                    bar.Update(static_cast<uint64_t>(done), static_cast<uint64_t>(total));
                                  }};
  if (!report.placement.plan.dense()) {
    ESPALIER_ASSIGN_OR_RETURN(report.plan, ComparePlanWithDense(*engine, report.placement.plan, work, compare));
    ESPALIER_RETURN_IF_ERROR(engine->Apply(report.placement.plan).status());
  }
  if (o.versus_libllama) {
    ESPALIER_ASSIGN_OR_RETURN(report.versus, CompareWithLibllama(*engine, work, compare));
  }
  return report;
}

void AddQuartiles(Json& json, const std::string& key, const Quartiles& q) {
  json[key] = q.median;
  json[key + "_quartiles"] = {q.low, q.high};
}

Json ReportOf(const Model& model, const BenchOptions& o, const BenchReport& r) {
  Json report = {{"model", ModelJson(model)},
                 {"threads", o.engine.n_threads},
                 {"ubatch_tokens", o.engine.n_ubatch},
                 {"repetitions", o.repetitions}};
  AddPlacement(report, r.placement);
  report["predicted_managed_bytes"] = r.placement.footprint.managed_bytes();
  report["memory_bandwidth_gigabytes_per_second"] = r.bandwidth / 1e9;
  for (const auto& [name, speed] : {std::pair("prefill", &r.prefill), std::pair("decode", &r.decode)}) {
    if (*speed) {
      const Speed& s = **speed;
      const std::string prefix = name;
      report[prefix + "_tokens"] = s.tokens;
      AddQuartiles(report, prefix + "_ms", s.ms);
      report[prefix + "_tokens_per_second"] = s.tokens_per_second();
      report[prefix + "_gigabytes_per_second"] = s.gigabytes_per_second();
      report[prefix + "_share_of_bandwidth"] = 1e9 * s.gigabytes_per_second() / r.bandwidth;
    }
  }
  if (r.versus) {
    report["logits_equal"] = true;
    for (const auto& [name, ratio] :
         {std::pair("prefill_ratio", &r.versus->prefill_ratio), std::pair("decode_ratio", &r.versus->decode_ratio)}) {
      if (*ratio) {
        AddQuartiles(report, name, **ratio);
      }
    }
  }
  if (r.plan) {
    if (r.plan->decode_speed_up) {
      AddQuartiles(report, "decode_speed_up", *r.plan->decode_speed_up);
      report["decode_byte_ratio"] = r.plan->byte_ratio;
      report["decode_speed_up_per_byte_ratio"] = r.plan->decode_speed_up->median / r.plan->byte_ratio;
    }
    if (r.plan->prefill_speed_up) {
      AddQuartiles(report, "prefill_speed_up", *r.plan->prefill_speed_up);
    }
  }
  return report;
}

void PrintText(const Model& model, const BenchReport& r) {
  fmt::print("{} {}, plan {}; memory read at {:.1f} GB/s\n\n", model.display_name(), model.quantization(),
             r.placement.plan.ToText(), r.bandwidth / 1e9);
  fmt::print("{:<9} {:>7} {:>11} {:>19} {:>9} {:>14}\n", "", "tokens", "tok/s", "ms (quartiles)", "GB/s",
             "of bandwidth");
  for (const auto& [name, speed] : {std::pair("prefill", &r.prefill), std::pair("decode", &r.decode)}) {
    if (*speed) {
      const Speed& s = **speed;
      fmt::print("{:<9} {:>7} {:>11.2f} {:>19} {:>9.2f} {:>13.0f}%\n", name, s.tokens, s.tokens_per_second(),
                 fmt::format("{:.1f} ({:.1f}-{:.1f})", s.ms.median, s.ms.low, s.ms.high), s.gigabytes_per_second(),
                 100e9 * s.gigabytes_per_second() / r.bandwidth);
    }
  }
  const auto ratio = [](const char* name, const std::optional<Quartiles>& q) {
    if (q) {
      fmt::print("{:<24} {:.3f}x (quartiles {:.3f}-{:.3f})\n", name, q->median, q->low, q->high);
    }
  };
  if (r.plan) {
    fmt::print("\nplan against dense, in one engine, alternating:\n");
    ratio("decode speed-up", r.plan->decode_speed_up);
    if (r.plan->decode_speed_up) {
      fmt::print("{:<24} {:.3f}x; speed-up / byte ratio {:.3f}\n", "bytes read per token", r.plan->byte_ratio,
                 r.plan->decode_speed_up->median / r.plan->byte_ratio);
    }
    ratio("prefill speed-up", r.plan->prefill_speed_up);
  }
  if (r.versus) {
    fmt::print("\nagainst libllama (dense), in one process, alternating; logits checked first: equal bit by bit\n");
    ratio("prefill speed", r.versus->prefill_ratio);
    ratio("decode speed", r.versus->decode_ratio);
  }
}

Status Bench(const BenchOptions& o) {
  ESPALIER_ASSIGN_OR_RETURN(const auto model, o.model.Open());
  ESPALIER_ASSIGN_OR_RETURN(const BenchReport report, MeasureAll(o, model));
  if (o.json) {
    PrintJson(ReportOf(*model, o, report));
  } else {
    PrintText(*model, report);
  }
  return Status::Ok();
}

}  // namespace

void AddBenchCommand(CLI::App& app, std::vector<Command>& commands) {
  auto* bench = app.add_subcommand("bench", "Prefill and decode speed, beside memory bandwidth and libllama");
  bench->footer(
      "Examples:\n"
      "  espalier bench model.gguf\n"
      "  espalier bench model.gguf --vs-libllama --json\n"
      "  espalier bench model.gguf --drop a3,f3,a4,f4\n"
      "  espalier bench residency model.gguf --cycles 3\n");
  AddCommand<BenchOptions>(bench, commands, BindBench, Bench);
  AddBenchResidencyCommand(*bench, commands);
}

}  // namespace espalier
