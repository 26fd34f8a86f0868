#include "control/rap_training.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "base/stopwatch.h"
#include "policy/loss_table.h"
#include "policy/profile_policies.h"
#include "rl/agent.h"
#include "rl/exact.h"
#include "surrogate/loss_surrogate.h"

namespace espalier {
namespace {

constexpr uint64_t kJudgedSeed = 0x6a756467656dULL;

class RapTraining {
 public:
  RapTraining(const MemoryModel& memory, const RapTrainingOptions& options, Profile* profile, PlanEvaluator* evaluator)
      : memory_(memory), options_(options), profile_(profile), evaluator_(evaluator) {
    subject_.memory = &memory_;
    std::mt19937_64 random(kJudgedSeed);
    for (int i = 0; i < options_.judged_tasks; ++i) {
      tasks_.push_back(DrawTask(memory_, 0, options_.training.tasks, &random));
    }
  }

  Status Prepare() {
    ESPALIER_ASSIGN_OR_RETURN(subject_.importance, ImportanceOf(*profile_));
    ESPALIER_RETURN_IF_ERROR(TakeUpAgent());
    if (options_.reward == "paper") {
      reward_ = std::make_unique<PaperReward>(subject_.importance);
      return Status::Ok();
    }
    reward_ = std::make_unique<MeasuredReward>([this](const Plan& plan) { return LossOf(plan); },
                                               [this](const Observation& task) { return LeastLoss(task); });
    return FitSurrogate();
  }

  Result<RapTrainingReport> Run(const std::atomic<bool>* stop,
                                const std::function<void(const RapTrainingNews&)>& news) {
    const int rounds = evaluator_ != nullptr && options_.reward == "measured" && options_.training.episodes > 0
                           ? std::max(1, options_.rounds)
                           : 1;
    for (int round = 0; round < rounds; ++round) {
      const auto tell = [&](std::string phase, double done, std::string detail) {
        if (news) {
          news({std::move(phase), (round + done) / rounds, std::move(detail)});
        }
      };
      ESPALIER_RETURN_IF_ERROR(TrainRound(round, stop, tell));
      ESPALIER_RETURN_IF_ERROR(Judge());
      if (round + 1 == rounds || TimeIsUp()) {
        break;
      }
      ESPALIER_ASSIGN_OR_RETURN(const bool learned, MeasureWhatItServes(tell));
      if (!learned) {
        break;
      }
    }
    if (options_.reward == "measured") {
      ESPALIER_RETURN_IF_ERROR(JudgeRivals());
    }
    report_.seconds = Seconds();
    return std::move(report_);
  }

 private:
  double Seconds() const { return watch_.Milliseconds() / 1000; }
  bool TimeIsUp() const { return options_.minutes > 0 && Seconds() > 60 * options_.minutes; }

  const Archive* archive() const { return evaluator_ != nullptr ? &evaluator_->archive() : ServedArchive(*profile_); }

  Status TakeUpAgent() {
    const uint64_t seed = options_.training.dqn.seed;
    const char* network = StateKindName(options_.training.network);
    for (const Agent& agent : profile_->agents) {
      if (agent.network == network && agent.reward == options_.reward && agent.seed == seed) {
        ESPALIER_ASSIGN_OR_RETURN(network_, NetworkOf(agent, 2 * profile_->n_layer));
        episodes_ = agent.episodes;
        trained_on_ = agent.trained_on;
      }
    }
    if (network_ == nullptr && options_.initial) {
      ESPALIER_ASSIGN_OR_RETURN(network_, NetworkOf(*options_.initial, 2 * profile_->n_layer));
      episodes_ = options_.initial->episodes;
      trained_on_ = options_.initial->trained_on;
    }
    if (network_ == nullptr && options_.training.episodes == 0) {
      return InvalidArgument("expected episodes to train for, or an agent to begin with; found neither");
    }
    return Status::Ok();
  }

  Status FitSurrogate() {
    const Stopwatch watch;
    const Archive* measured = archive();
    if (measured == nullptr) {
      return NotFound("the profile has no measured plans to learn from; `espalier rank` measures them");
    }
    ESPALIER_ASSIGN_OR_RETURN(LossSurrogate surrogate, LossSurrogate::Fit(*measured, profile_->n_layer));
    surrogate_ = std::make_unique<LossSurrogate>(std::move(surrogate));
    table_ = std::make_unique<LossTable>(measured, profile_->n_layer);
    guessed_.clear();
    report_.surrogate_seconds += watch.Milliseconds() / 1000;
    return Status::Ok();
  }

  // Measured, or guessed; guesses are kept, since episodes end with the same plans again and again.
  Result<double> LossOf(const Plan& plan) {
    if (const auto loss = archive()->LossOf(plan)) {
      return *loss;
    }
    if (plan.dense()) {
      return 0.0;
    }
    const auto [guess, fresh] = guessed_.try_emplace(plan.ToText(), 0.0);
    if (fresh) {
      guess->second =
          std::max(0.0, std::exp(surrogate_->LogMeans(std::span(&plan, 1)).front()) - LossSurrogate::kFloor);
    }
    return guess->second;
  }

  // Of a plan in the archive that fits; where there is none every plan is as good.
  double LeastLoss(const Observation& task) const {
    const auto best = table_->BestThatFits(task);
    return best ? archive()->LossOf(best->plan).value_or(0) : 0;
  }

  void Keep() {
    profile_->Put(RecordOf(*network_, options_.reward, options_.training.dqn.seed, episodes_, trained_on_));
  }

  template <class Tell>
  Status TrainRound(int round, const std::atomic<bool>* stop, const Tell& tell) {
    if (options_.training.episodes == 0) {
      Keep();
      return Status::Ok();
    }
    const Stopwatch watch;
    TrainingOptions training = options_.training;
    if (network_ != nullptr) {
      // It knows something already: less exploring, and other tasks than last time.
      training.first_epsilon = std::min(training.first_epsilon, 0.3);
    }
    training.dqn.seed = options_.training.dqn.seed + 0x9e3779b97f4a7c15ULL * static_cast<uint64_t>(round + episodes_);
    const int64_t before = episodes_;
    auto agent = TrainAgent(subject_, reward_.get(), training, network_.get(), stop, [&](const TrainingProgress& p) {
      report_.curve.push_back(p);
      report_.curve.back().episodes += before;
      tell("episodes", static_cast<double>(p.episodes) / static_cast<double>(training.episodes),
           fmt::format("{} episodes, return {:.3f}, TD error {:.2g}", before + p.episodes, p.mean_return, p.td_error));
    });
    report_.episode_seconds += watch.Milliseconds() / 1000;
    ESPALIER_RETURN_IF_ERROR(agent.status());
    network_ = std::move(*agent);
    episodes_ += training.episodes;
    trained_on_ = profile_->model_fingerprint;
    Keep();
    return Status::Ok();
  }

  struct Gaps {
    double mean = 0;
    double worst = 0;
  };

  // Of `gap_of(task)` over the judged tasks that have one; 0 where none has.
  template <class GapOf>
  Result<Gaps> OverTasks(const GapOf& gap_of) {
    Gaps gaps;
    int n = 0;
    for (const Task& task : tasks_) {
      ESPALIER_ASSIGN_OR_RETURN(const std::optional<double> gap, gap_of(task));
      if (gap) {
        gaps.mean += *gap;
        gaps.worst = n == 0 ? *gap : std::max(gaps.worst, *gap);
        ++n;
      }
    }
    gaps.mean /= std::max(n, 1);
    return gaps;
  }

  Status Judge() {
    ESPALIER_ASSIGN_OR_RETURN(const Gaps gaps, options_.reward == "paper"
                                                   ? OverTasks([this](const Task& task) { return PaperGap(task); })
                                                   : MeasuredGaps(Served()));
    report_.gaps.push_back({episodes_, Seconds(), gaps.mean, gaps.worst});
    return Status::Ok();
  }

  Result<std::optional<double>> PaperGap(const Task& task) {
    const std::vector<double> values = BlockValues(task.observation, subject_.importance);
    const double gamma = options_.training.dqn.gamma;
    ESPALIER_ASSIGN_OR_RETURN(const BestEpisode best, BestAdditiveEpisode(task.observation, values, gamma));
    PruningEnvironment environment({.state = options_.training.network}, subject_.importance, reward_.get());
    ESPALIER_ASSIGN_OR_RETURN(const double value, Play(*network_, &environment, task.observation, gamma));
    return std::optional<double>(best.value > 0 ? std::optional(1 - value / best.value) : std::nullopt);
  }

  Result<Gaps> MeasuredGaps(const Policy& policy) {
    ESPALIER_ASSIGN_OR_RETURN(const Gaps logs, OverTasks([&](const Task& task) { return MeasuredGap(policy, task); }));
    return Gaps{std::exp(logs.mean) - 1, std::exp(logs.worst) - 1};
  }

  // ln of the loss over the least known. Empty where the dense plan fits, or the policy refuses.
  Result<std::optional<double>> MeasuredGap(const Policy& policy, const Task& task) {
    const auto best = table_->BestThatFits(task.observation);
    const auto decision = policy.Decide(task.observation);
    if (!best || best->plan.dense() || !decision.ok()) {
      return std::optional<double>();
    }
    ESPALIER_ASSIGN_OR_RETURN(const double loss, LossOf(decision->plan));
    ESPALIER_ASSIGN_OR_RETURN(const double least, LossOf(best->plan));
    return std::optional(std::log((loss + MeasuredReward::kFloor) / (least + MeasuredReward::kFloor)));
  }

  // What the agent is to be better than.
  Status JudgeRivals() {
    for (const char* name : {"gsi", "density"}) {
      const auto policy = MakeProfilePolicy(name, *profile_, {});
      if (!policy.ok()) {
        continue;  // the profile has no such order
      }
      ESPALIER_ASSIGN_OR_RETURN(const Gaps gaps, MeasuredGaps(**policy));
      report_.rivals.push_back({name, gaps.mean, gaps.worst});
    }
    return Status::Ok();
  }

  // The agent as it would serve now.
  RapPolicy Served() const { return {"rap", network_->Clone(), subject_.importance}; }

  // The plans that the agent serves most often and nobody has measured. False if there is none.
  template <class Tell>
  Result<bool> MeasureWhatItServes(const Tell& tell) {
    const Stopwatch watch;
    const RapPolicy agent = Served();
    std::map<std::string, std::pair<int, Plan>> served;
    for (const Task& task : tasks_) {
      ESPALIER_ASSIGN_OR_RETURN(const Decision decision, agent.Decide(task.observation));
      const Plan& plan = decision.plan;
      if (!plan.dense() && !evaluator_->archive().LossOf(plan)) {
        auto& entry = served.try_emplace(plan.ToText(), 0, plan).first->second;
        ++entry.first;
      }
    }
    std::vector<std::pair<int, Plan>> plans;
    for (auto& [text, entry] : served) {
      plans.push_back(std::move(entry));
    }
    std::stable_sort(plans.begin(), plans.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
    if (plans.size() > static_cast<size_t>(options_.plans_per_round)) {
      plans.erase(plans.begin() + options_.plans_per_round, plans.end());
    }
    for (size_t i = 0; i < plans.size() && !TimeIsUp(); ++i) {
      tell("measuring", 1, fmt::format("{} of {} plans that the agent serves", i + 1, plans.size()));
      ESPALIER_RETURN_IF_ERROR(evaluator_->Measure(plans[i].second).status());
      ++report_.plans_measured;
    }
    report_.measuring_seconds += watch.Milliseconds() / 1000;
    ESPALIER_RETURN_IF_ERROR(FitSurrogate());
    return !plans.empty();
  }

  const MemoryModel& memory_;
  const RapTrainingOptions& options_;
  Profile* profile_;
  PlanEvaluator* evaluator_;
  TrainingSubject subject_;
  std::vector<Task> tasks_;  // that agents are judged on
  std::unique_ptr<Reward> reward_;
  std::unique_ptr<LossSurrogate> surrogate_;
  std::unique_ptr<LossTable> table_;
  std::map<std::string, double> guessed_;
  std::unique_ptr<QNetwork> network_;
  int64_t episodes_ = 0;
  std::string trained_on_;  // fingerprint of the model
  RapTrainingReport report_;
  Stopwatch watch_;
};

}  // namespace

Result<RapTrainingReport> TrainRap(const MemoryModel& memory, const RapTrainingOptions& options, Profile* profile,
                                   PlanEvaluator* evaluator, const std::atomic<bool>* stop,
                                   const std::function<void(const RapTrainingNews&)>& news) {
  RapTraining training(memory, options, profile, evaluator);
  ESPALIER_RETURN_IF_ERROR(training.Prepare());
  return training.Run(stop, news);
}

}  // namespace espalier
