// What espalier compare measures with, and its quantisation ladder.
#pragma once

#include <CLI/CLI.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/status.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "control/policy_comparison.h"
#include "control/quantisation_ladder.h"
#include "eval/plan_evaluator.h"
#include "eval/windows.h"
#include "model/block_means.h"
#include "model/model.h"
#include "profile/profile.h"

namespace espalier {

// What every measurement and every byte figure of this comparison is made with.
struct CompareSetting {
  EngineFlags flags;
  Ablation ablation = Ablation::kZero;
  std::shared_ptr<const BlockMeans> means;

  // To serve workloads of so many KV cells: byte figures are taken of it.
  Result<EngineOptions> EngineFor(const Workload& workload) const;
  Result<PlanEvaluatorOptions> Evaluator(const Windows& windows) const;
};

// As the profile's plans are served.
CompareSetting SettingOf(const EngineFlags& flags, const Profile& profile);

// A bar that can be replaced by the next one.
class Bars {
 public:
  std::function<void(int64_t, int64_t)> Start(const std::string& what) {
    bar_.reset();
    bar_.emplace(what);
    return [this](int64_t done, int64_t total) {
      bar_->Update(static_cast<uint64_t>(done), static_cast<uint64_t>(total));
    };
  }

 private:
  std::optional<ProgressBar> bar_;
};

// --ladder and --ladder-folder.
struct LadderFlags {
  std::string source;  // empty: no ladder
  std::string folder;
  bool given() const { return !source.empty(); }
};
void AddLadderFlags(CLI::App& app, LadderFlags& flags);

// Opens the source and makes the files of its rungs where they are missing (told on stderr); the compared model joins
// them as a rung, if its fingerprint is that of one, or beside them. `windows` must outlive what is returned.
// kInvalidArgument if the source is of another shape than `model`.
Result<LadderOptions> PrepareLadder(const LadderFlags& flags, const std::shared_ptr<const Model>& model,
                                    const CompareSetting& setting, const Windows& windows);

// Measures it at the comparison's distinct workloads and cells, pruned by the profile's default policy.
Result<Ladder> Climb(LadderOptions options, const Profile& profile, const PolicyComparison& comparison);

}  // namespace espalier
