#include "control/quantisation_ladder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <utility>

#include "control/measured_plans.h"
#include "model/fingerprint.h"
#include "text/quantize.h"

namespace espalier {
namespace {

// What has to be measured of one model.
struct Orders {
  bool dense = false;
  std::vector<size_t> steps;   // whose larger rung it is
  std::vector<size_t> points;  // all of them, if it is the subject
};

class Climber {
 public:
  Climber(const Policy& policy, const std::vector<ScenarioMemory>& scenarios, const std::vector<size_t>& workloads,
          const LadderOptions& options)
      : policy_(policy), scenarios_(scenarios), chosen_(workloads), options_(options) {
    ladder_.kind = options.kind;
    ladder_.notes = options.notes;
    ladder_.policy = policy.name();
    ladder_.subject_is_source = options.subject == 0;
    for (const size_t i : workloads) {
      ladder_.workloads.push_back(scenarios[i].scenario.workload);
    }
  }

  Result<Ladder> Run() {
    ESPALIER_RETURN_IF_ERROR(ReadBytes());
    PlanSteps();
    PlanPoints();
    for (size_t i = 0; i < options_.models.size(); ++i) {
      ESPALIER_RETURN_IF_ERROR(MeasureModel(i));
    }
    for (LadderStep& step : ladder_.steps) {
      CompareStep(&step);
    }
    for (size_t workload = 0; ladder_.rungs.size() > 1 && workload < ladder_.workloads.size(); ++workload) {
      ladder_.statements.push_back(StatementFor(workload));
    }
    return std::move(ladder_);
  }

 private:
  const MemoryModel& memory(size_t model, size_t workload) const { return memory_[model][workload]; }

  Status ReadBytes() {
    for (const LadderModel& model : options_.models) {
      LadderRung rung = {model.name, model.path, {}, {}, 0, {}};
      std::vector<MemoryModel> memory;
      for (const Workload& workload : ladder_.workloads) {
        ESPALIER_ASSIGN_OR_RETURN(memory.emplace_back(), model.memory(workload));
        const Footprint footprint = PredictFootprint(memory.back(), Dense(memory.back()), workload);
        rung.dense_peak_bytes.push_back(footprint.peak_bytes());
        rung.dense_kv_bytes.push_back(footprint.kv_bytes);
      }
      memory_.push_back(std::move(memory));
      if (model.rung) {
        ladder_.rungs.push_back(std::move(rung));
      }
    }
    resampled_.resize(ladder_.rungs.size());
    return Status::Ok();
  }

  static Plan Dense(const MemoryModel& memory) { return Plan::Dense(static_cast<int>(memory.block_bytes.size() / 2)); }

  Result<Decision> DecideFor(size_t model, size_t workload, uint64_t limit_bytes) const {
    return policy_.Decide({.memory = &memory(model, workload),
                           .workload = ladder_.workloads[workload],
                           .limit_bytes = limit_bytes,
                           .process_bytes = options_.process_bytes});
  }

  void PlanSteps() {
    for (size_t workload = 0; workload < ladder_.workloads.size(); ++workload) {
      for (size_t larger = 0; larger + 1 < ladder_.rungs.size(); ++larger) {
        LadderStep step = {workload, larger, larger + 1, {}, 0, {}, {}};
        const uint64_t limit = options_.process_bytes + ladder_.rungs[step.smaller].dense_peak_bytes[workload];
        if (const auto decision = DecideFor(larger, workload, limit); decision.ok()) {
          step.plan = decision->plan;
          step.pruned_peak_bytes = decision->footprint.peak_bytes();
        }
        ladder_.steps.push_back(std::move(step));
      }
    }
  }

  void PlanPoints() {
    for (const Cell& cell : options_.cells) {
      for (size_t workload = 0; workload < chosen_.size(); ++workload) {
        if (cell.scenario != chosen_[workload]) {
          continue;
        }
        if (const auto decision = DecideFor(options_.subject, workload, cell.limit_bytes); decision.ok()) {
          ladder_.points.push_back(
              {workload, cell.budget.ToText(), decision->plan, decision->footprint.peak_bytes(), {}});
        }
      }
    }
  }

  Orders OrdersFor(size_t model) const {
    Orders orders;
    orders.dense = options_.models[model].rung;
    for (size_t i = 0; i < ladder_.steps.size(); ++i) {
      if (ladder_.steps[i].larger == model && ladder_.steps[i].plan) {
        orders.steps.push_back(i);
      }
    }
    for (size_t i = 0; model == options_.subject && i < ladder_.points.size(); ++i) {
      orders.points.push_back(i);
    }
    return orders;
  }

  Status MeasureModel(size_t model) {
    const Orders orders = OrdersFor(model);
    if (!orders.dense && orders.steps.empty() && orders.points.empty()) {
      return Status::Ok();
    }
    const LadderModel& which = options_.models[model];
    ESPALIER_ASSIGN_OR_RETURN(const auto evaluator, which.evaluator());
    const Plan dense = Dense(memory(model, 0));
    std::vector<Plan> plans;
    if (orders.dense) {
      plans.push_back(dense);
    }
    for (const size_t i : orders.steps) {
      plans.push_back(*ladder_.steps[i].plan);
    }
    for (const size_t i : orders.points) {
      plans.push_back(ladder_.points[i].plan);
    }
    const auto progress = [&](int64_t done, int64_t total) {
      if (options_.progress) {
        options_.progress(which.name, done, total);
      }
    };
    ESPALIER_ASSIGN_OR_RETURN(const int64_t measured, MeasurePlans(std::move(plans), evaluator.get(), progress));
    ladder_.plans_measured += measured;
    const WindowBootstrap bootstrap(evaluator->n_windows(), options_.resamples, options_.seed);
    const auto figures = [&](const Plan& plan) {
      return FiguresOf(plan, evaluator->archive(), evaluator->dense_nll(), bootstrap);
    };
    for (const size_t i : orders.steps) {
      LossFigures of_step = figures(*ladder_.steps[i].plan);
      ladder_.steps[i].pruned_loss = WindowBootstrap::IntervalOf(of_step.loss, of_step.resampled);
      pruned_[i] = std::move(of_step.resampled);
    }
    for (const size_t i : orders.points) {
      const LossFigures of_point = figures(ladder_.points[i].plan);
      ladder_.points[i].loss = WindowBootstrap::IntervalOf(of_point.loss, of_point.resampled);
    }
    if (orders.dense) {
      LossFigures of_rung = figures(dense);
      ladder_.rungs[model].loss = WindowBootstrap::IntervalOf(of_rung.loss, of_rung.resampled);
      ladder_.rungs[model].perplexity = std::exp(of_rung.mean_nll);
      resampled_[model] = std::move(of_rung.resampled);
    }
    return Status::Ok();
  }

  void CompareStep(LadderStep* step) const {
    if (!step->plan) {
      return;
    }
    const auto ratio_of = [](double pruned, double dense) { return pruned / std::max(dense, 1e-12); };
    const auto& pruned = pruned_.at(static_cast<size_t>(step - ladder_.steps.data()));
    const auto& dense = resampled_[step->smaller];
    std::vector<double> ratios;
    for (size_t i = 0; i < pruned.size(); ++i) {
      ratios.push_back(ratio_of(pruned[i], dense[i]));
    }
    const double ratio = ratio_of(step->pruned_loss.value, ladder_.rungs[step->smaller].loss.value);
    step->ratio = WindowBootstrap::IntervalOf(ratio, std::move(ratios));
  }

  LadderStatement StatementFor(size_t workload) const {
    LadderStatement statement;
    statement.workload = workload;
    const auto share_of = [&](size_t rung) {
      return static_cast<double>(ladder_.rungs[rung].dense_peak_bytes[workload]) /
             static_cast<double>(ladder_.rungs[0].dense_peak_bytes[workload]);
    };
    const std::string at = ladder_.workloads[workload].ToText();
    const std::string source_bytes = ladder_.kind == LadderKind::kKv
                                         ? fmt::format("dense bytes with {}", ladder_.Called(0))
                                         : fmt::format("{} dense bytes", ladder_.Called(0));
    for (size_t i = 0; i < ladder_.steps.size() && !statement.step; ++i) {
      const LadderStep& step = ladder_.steps[i];
      if (step.workload == workload && step.pruning_wins()) {
        statement.step = i;
        statement.share_of_source = share_of(step.smaller);
        statement.text = fmt::format(
            "{}: pruning begins to win at {:.0f} % of the {}: {} pruned to the bytes of {} loses {} nats per "
            "token, {} dense {}",
            at, 100 * statement.share_of_source, source_bytes, ladder_.Called(step.larger),
            ladder_.Called(step.smaller), NatsText(step.pruned_loss.value), ladder_.Called(step.smaller),
            NatsText(ladder_.rungs[step.smaller].loss.value));
      }
    }
    if (!statement.step) {
      statement.share_of_source = share_of(ladder_.rungs.size() - 1);
      statement.text =
          fmt::format("{}: pruning never wins above the smallest rung, {} ({:.0f} % of the {}); below it {}", at,
                      ladder_.Called(ladder_.rungs.size() - 1), 100 * statement.share_of_source, source_bytes,
                      ladder_.kind == LadderKind::kKv ? "there is no KV type" : "nothing else is left");
    }
    return statement;
  }

  const Policy& policy_;
  const std::vector<ScenarioMemory>& scenarios_;
  const std::vector<size_t>& chosen_;
  const LadderOptions& options_;
  Ladder ladder_;
  std::vector<std::vector<MemoryModel>> memory_;  // [model][workload]
  std::vector<std::vector<double>> resampled_;    // by rung: losses of the dense plan
  std::map<size_t, std::vector<double>> pruned_;  // by step
};

}  // namespace

const char* LadderTitle(LadderKind kind) { return kind == LadderKind::kKv ? "KV ladder" : "quantisation ladder"; }

std::string NatsText(double nats) {
  return nats > 0 && nats < 1e-3 ? fmt::format("{:.6f}", nats) : fmt::format("{:.4f}", nats);
}

std::string Ladder::Called(size_t rung) const {
  return kind == LadderKind::kKv ? "KV " + rungs[rung].name : rungs[rung].name;
}

const std::vector<std::string>& LadderTypes() {
  static const std::vector<std::string> kTypes = {"Q8_0", "Q6_K", "Q4_K_M", "Q3_K_M", "Q2_K"};
  return kTypes;
}

Result<Ladder> ClimbLadder(const Policy& policy, const std::vector<ScenarioMemory>& scenarios,
                           const std::vector<size_t>& workloads, const LadderOptions& options) {
  return Climber(policy, scenarios, workloads, options).Run();
}

Result<std::vector<RungFile>> MakeRungFiles(const Model& source, const std::string& folder, int n_threads,
                                            const std::function<void(const std::string& type)>& progress) {
  ESPALIER_ASSIGN_OR_RETURN(const std::string fingerprint, Fingerprint(source));
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    return IoError(fmt::format("{}: cannot be made a folder: {}", folder, error.message()));
  }
  std::vector<RungFile> files;
  for (const std::string& type : LadderTypes()) {
    const auto path = std::filesystem::path(folder) / fmt::format("{}-{}.gguf", fingerprint, type);
    if (!std::filesystem::exists(path, error)) {
      if (progress) {
        progress(type);
      }
      ESPALIER_RETURN_IF_ERROR(QuantizeModel(source.path(), path.string(), type, n_threads));
    }
    files.push_back({type, path.string()});
  }
  return files;
}

}  // namespace espalier
