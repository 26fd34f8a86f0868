// Options that several commands share. They are declared once, so that they mean the same everywhere.
#pragma once

#include <CLI/CLI.hpp>

#include <memory>
#include <optional>
#include <string>

#include "base/status.h"
#include "memory/budget.h"
#include "model/model.h"
#include "model/plan.h"
#include "runtime/engine.h"
#include "text/sampler.h"

namespace espalier {

// MODEL: a file, or the name of a model that comes with Espalier.
struct ModelOption {
  std::string name = "reference";
  std::string Path() const;
  Result<std::shared_ptr<const Model>> Open() const;
};
void AddModelOption(CLI::App& app, ModelOption& option);

// --drop and --plan.
struct PlanOptions {
  std::string drop;
  std::string plan;
  bool given() const { return !drop.empty() || !plan.empty(); }
  // The dense plan where neither is given.
  Result<Plan> Read(int n_layer) const;
};
void AddPlanOptions(CLI::App& app, PlanOptions& options);

// --memory-budget.
struct BudgetOption {
  std::string text;
  // Empty where it is not given.
  Result<std::optional<Budget>> Read() const;
};
CLI::Option* AddBudgetOption(CLI::App& app, BudgetOption& option);

// -t -ub -ctk -ctv -ngl -fa --device --no-repack --copy-tied-head --drop-page-cache.
struct EngineFlags {
  int n_threads = 0;
  int n_ubatch = 512;
  std::string key_type = "f16";
  std::string value_type = "f16";
  std::string device;
  int gpu_layers = 0;
  std::string flash_attn = "on";
  bool no_repack = false;
  bool copy_tied_head = false;
  bool drop_page_cache = false;
  // For `n_ctx` KV cells, which also bound the sub-batch: no graph has more tokens than there are cells.
  Result<EngineOptions> Read(int64_t n_ctx) const;
  // For the workload's cells and sequences.
  Result<EngineOptions> Read(const Workload& workload) const;
};
void AddEngineFlags(CLI::App& app, EngineFlags& flags);

// -c, which means a limit per sequence.
void AddContextOption(CLI::App& app, int64_t& n_ctx);
// Fails if `tokens` in one sequence are more than the model was trained for.
Status CheckContext(const Model& model, int64_t tokens);

// llama.cpp's sampling flags.
struct SamplingFlags {
  SamplerOptions options;
  int64_t seed = -1;
  std::string grammar_file;
  Result<SamplerOptions> Read() const;
};
void AddSamplingFlags(CLI::App& app, SamplingFlags& flags);

void AddJsonFlag(CLI::App& app, bool& json);

}  // namespace espalier
