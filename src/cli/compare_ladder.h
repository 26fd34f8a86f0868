// What espalier compare measures with, and its quantisation ladders: of the weights and of the KV cache.
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

// --ladder, --ladder-folder and --no-kv-ladder.
struct LadderFlags {
  std::string source;  // empty: no ladder of weights
  std::string folder;
  bool no_kv = false;
  bool given() const { return !source.empty(); }
};
void AddLadderFlags(CLI::App& app, LadderFlags& flags);

// Opens the source and makes the files of its rungs where they are missing (told on stderr); the compared model joins
// them as a rung, if its fingerprint is that of one, or beside them. `windows` must outlive what is returned.
// kInvalidArgument if the source is of another shape than `model`.
Result<LadderOptions> PrepareLadder(const LadderFlags& flags, const std::shared_ptr<const Model>& model,
                                    const CompareSetting& setting, const Windows& windows);

// The ladder of `model` with the setting's KV types as the source, and below it every type that takes fewer bytes a
// cell, keys and values alike. Types that the engine refuses for this model (heads of another size than a multiple of
// 32) are left out, with a note. `windows` must outlive what is returned.
Result<LadderOptions> PrepareKvLadder(const std::shared_ptr<const Model>& model, const CompareSetting& setting,
                                      const Windows& windows);

// Measures it at the comparison's distinct workloads and cells, pruned by the profile's default policy: block numbers
// and losses carry over between KV types as between types of weights. The curve of a subject that is the source is the
// comparison's own, and not measured again. Nothing is added to a profile: with other plans known on its text, the same
// comparison made again would hold policies against another best known.
Result<Ladder> Climb(LadderOptions options, const Profile& profile, const PolicyComparison& comparison);

}  // namespace espalier
