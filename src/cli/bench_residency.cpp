// espalier bench residency: is memory really given back, and how fast does it return?
#include "cli/bench_residency.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/process_memory.h"
#include "cli/json.h"
#include "cli/number_check.h"
#include "cli/options.h"
#include "control/measure.h"

namespace espalier {
namespace {

struct ResidencyOptions {
  ModelOption model;
  int cycles = 3;
  EngineFlags engine;
  bool json = false;
};

void BindResidency(CLI::App& app, ResidencyOptions& o) {
  AddModelOption(app, o.model);
  app.add_option("--cycles", o.cycles, "Times that everything is released and restored")
      ->check(InRange(1, 10000))
      ->capture_default_str();
  AddEngineFlags(app, o.engine);
  AddJsonFlag(app, o.json);
}

struct StoreResult {
  const char* store;
  std::vector<ResidencyCycle> cycles;
};

Result<StoreResult> MeasureStore(const ResidencyOptions& o, const std::shared_ptr<const Model>& model, bool repack) {
  EngineFlags flags = o.engine;
  flags.no_repack = !repack;
  ESPALIER_ASSIGN_OR_RETURN(const EngineOptions options, flags.Read(std::min(model->hparams().n_ctx_train, 256)));
  ESPALIER_ASSIGN_OR_RETURN(const ProcessMemory process, ReadProcessMemory());
  ESPALIER_ASSIGN_OR_RETURN(const auto engine, Engine::Create(model, options, Plan::Dense(model->n_layer())));
  StoreResult result = {repack ? "repack" : "plain", {}};
  ESPALIER_ASSIGN_OR_RETURN(result.cycles, MeasureResidency(*engine, o.cycles, process.anonymous_bytes));
  return result;
}

Json ToJson(const StoreResult& result) {
  Json cycles = Json::array();
  for (const ResidencyCycle& c : result.cycles) {
    cycles.push_back({{"managed_bytes_before", c.before.managed.total()},
                      {"managed_bytes_released", c.released.managed.total()},
                      {"managed_bytes_restored", c.restored.managed.total()},
                      {"anonymous_bytes_before", c.before.anonymous_bytes},
                      {"anonymous_bytes_released", c.released.anonymous_bytes},
                      {"anonymous_bytes_restored", c.restored.anonymous_bytes},
                      {"released_bytes", c.release.released_bytes},
                      {"restored_bytes", c.restore.loaded_bytes},
                      {"anonymous_share_of_released", c.anonymous_share()},
                      {"release_ms", c.release.release_ms},
                      {"restore_ms", c.restore.load_ms},
                      {"restore_gigabytes_per_second", c.restore_bytes_per_second() / 1e9},
                      {"rebuild_ms", c.rebuild_ms}});
  }
  return {{"store", result.store}, {"cycles", cycles}};
}

void PrintText(const StoreResult& result) {
  fmt::print("\n{} store:\n{:>5} {:>12} {:>12} {:>14} {:>9} {:>11} {:>11} {:>8} {:>10}\n", result.store, "cycle",
             "managed", "released to", "kernel's view", "of it", "release ms", "restore ms", "GB/s", "rebuild ms");
  for (size_t i = 0; i < result.cycles.size(); ++i) {
    const ResidencyCycle& c = result.cycles[i];
    const uint64_t fell = c.before.anonymous_bytes > c.released.anonymous_bytes
                              ? c.before.anonymous_bytes - c.released.anonymous_bytes
                              : 0;
    fmt::print("{:>5} {:>12} {:>12} {:>14} {:>8.2f}% {:>11.2f} {:>11.2f} {:>8.2f} {:>10.3f}\n", i + 1,
               FormatBytes(c.before.managed.total()), FormatBytes(c.released.managed.total()),
               fmt::format("-{}", FormatBytes(fell)), 100 * c.anonymous_share(), c.release.release_ms,
               c.restore.load_ms, c.restore_bytes_per_second() / 1e9, c.rebuild_ms);
  }
}

Status Residency(const ResidencyOptions& o) {
  ESPALIER_ASSIGN_OR_RETURN(const auto model, o.model.Open());
  std::vector<StoreResult> results;
  for (const bool repack : {false, true}) {
    if (repack && o.engine.no_repack) {
      continue;
    }
    ESPALIER_ASSIGN_OR_RETURN(StoreResult result, MeasureStore(o, model, repack));
    results.push_back(std::move(result));
  }
  if (o.json) {
    Json report = {{"model", ModelJson(*model)}, {"stores", Json::array()}};
    for (const StoreResult& result : results) {
      report["stores"].push_back(ToJson(result));
    }
    PrintJson(report);
    return Status::Ok();
  }
  fmt::print("{} {}: all blocks released and restored\n", model->display_name(), model->quantization());
  for (const StoreResult& result : results) {
    PrintText(result);
  }
  return Status::Ok();
}

}  // namespace

void AddBenchResidencyCommand(CLI::App& bench, std::vector<Command>& commands) {
  auto* residency = bench.add_subcommand("residency", "Release and restore of all blocks, over several cycles");
  residency->footer("Examples:\n  espalier bench residency model.gguf --cycles 3 --json\n");
  AddCommand<ResidencyOptions>(residency, commands, BindResidency, Residency);
}

}  // namespace espalier
