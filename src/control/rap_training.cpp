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
constexpr uint64_t kValidationSeed = 0x76616c6964ULL;

class RapTraining {
 public:
  RapTraining(const MemoryModel& memory, const RapTrainingOptions& options, Profile* profile, PlanEvaluator* evaluator)
      : memory_(memory), options_(options), profile_(profile), evaluator_(evaluator) {
    subject_.memory = &memory_;
    judged_ = Draw(kJudgedSeed);
    validation_ = Draw(kValidationSeed);
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
    const int64_t per_round = options_.training.episodes;
    const int64_t rounds =
        evaluator_ != nullptr && options_.reward == "measured" && per_round > 0 ? std::max(1, options_.rounds) : 1;
    // What is left of an interrupted training, where as much was asked for again; else all of it.
    int64_t done = planned_ > episodes_ ? rounds * per_round - (planned_ - episodes_) : 0;
    if (done <= 0 || per_round == 0) {
      done = 0;
      planned_ = episodes_ + rounds * per_round;
    }
    for (int64_t round = per_round > 0 ? done / per_round : 0; round < rounds; ++round) {
      const int64_t first_episode = per_round > 0 ? done % per_round : 0;
      done = (round + 1) * per_round;
      const auto tell = [&](std::string phase, double share, std::string detail) {
        if (news) {
          news({std::move(phase), (static_cast<double>(round) + share) / static_cast<double>(rounds),
                std::move(detail)});
        }
      };
      if (round > 0 && first_episode == 0) {
        ESPALIER_ASSIGN_OR_RETURN(const bool learned, MeasureWhatItServes(tell));
        if (!learned) {
          planned_ = episodes_;
          ESPALIER_RETURN_IF_ERROR(Keep(*network_, episodes_));
          break;
        }
      }
      SetCaution(round + 1 == rounds ? options_.caution : 0);
      ESPALIER_RETURN_IF_ERROR(TrainRound(round, first_episode, stop, tell));
      ESPALIER_RETURN_IF_ERROR(Judge());
      if (TimeIsUp()) {
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

  std::vector<Task> Draw(uint64_t seed) const {
    std::mt19937_64 random(seed);
    std::vector<Task> tasks;
    for (int i = 0; i < options_.judged_tasks; ++i) {
      tasks.push_back(DrawTask(memory_, 0, options_.training.tasks, &random));
    }
    return tasks;
  }

  const Archive* archive() const { return evaluator_ != nullptr ? &evaluator_->archive() : ServedArchive(*profile_); }

  Status TakeUpAgent() {
    const uint64_t seed = options_.training.dqn.seed;
    const char* network = StateKindName(options_.training.network);
    for (const Agent& agent : profile_->agents) {
      if (agent.network == network && agent.reward == options_.reward && agent.seed == seed) {
        ESPALIER_ASSIGN_OR_RETURN(network_, NetworkOf(agent, 2 * profile_->n_layer));
        episodes_ = agent.episodes;
        planned_ = agent.planned;
        trained_on_ = agent.trained_on;
      }
    }
    // One that is named takes the place of one that is finished; an interrupted training goes on.
    if (options_.initial && (network_ == nullptr || planned_ <= episodes_)) {
      ESPALIER_ASSIGN_OR_RETURN(network_, NetworkOf(*options_.initial, 2 * profile_->n_layer));
      episodes_ = options_.initial->episodes;
      planned_ = 0;
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
      const LossSurrogate::Guess at = surrogate_->Predict(plan);
      guess->second = std::max(0.0, std::exp(at.log_mean + caution_ * at.log_sd) - LossSurrogate::kFloor);
    }
    return guess->second;
  }

  void SetCaution(double caution) {
    if (caution != caution_) {
      caution_ = caution;
      guessed_.clear();
    }
  }

  // Of a plan in the archive that fits; where there is none every plan is as good.
  double LeastLoss(const Observation& task) const {
    const auto best = table_->BestThatFits(task);
    return best ? archive()->LossOf(best->plan).value_or(0) : 0;
  }

  Status Keep(const QNetwork& network, int64_t episodes) {
    Agent agent = RecordOf(network, options_.reward, options_.training.dqn.seed, episodes, trained_on_);
    agent.planned = planned_;
    profile_->Put(std::move(agent));
    return options_.keep ? options_.keep() : Status::Ok();
  }

  template <class Tell>
  Status TrainRound(int64_t round, int64_t first_episode, const std::atomic<bool>* stop, const Tell& tell) {
    if (options_.training.episodes == 0) {
      return Keep(*network_, episodes_);
    }
    const Stopwatch watch;
    TrainingOptions training = options_.training;
    const int64_t before = episodes_ - first_episode;
    training.first_episode = first_episode;
    if (before > 0) {
      // It knows something already: less exploring, and other tasks than last time.
      training.first_epsilon = std::min(training.first_epsilon, 0.3);
    }
    training.gap = [this](const QNetwork& agent) -> Result<double> {
      ESPALIER_ASSIGN_OR_RETURN(const Gaps gaps, LogGapsOf(agent, validation_));
      return gaps.mean;
    };
    training.dqn.seed = options_.training.dqn.seed + 0x9e3779b97f4a7c15ULL * static_cast<uint64_t>(round + episodes_);
    trained_on_ = profile_->model_fingerprint;
    training.checkpoint = [&](const QNetwork& agent, int64_t episodes) { return Keep(agent, before + episodes); };
    auto agent = TrainAgent(subject_, reward_.get(), training, network_.get(), stop, [&](const TrainingProgress& p) {
      report_.curve.push_back(p);
      report_.curve.back().episodes += before;
      tell("episodes", static_cast<double>(p.episodes) / static_cast<double>(training.episodes),
           fmt::format("{} episodes, return {:.3f}, TD error {:.2g}", before + p.episodes, p.mean_return, p.td_error));
    });
    report_.episode_seconds += watch.Milliseconds() / 1000;
    ESPALIER_RETURN_IF_ERROR(agent.status());
    network_ = std::move(*agent);
    episodes_ = before + training.episodes;
    return Keep(*network_, episodes_);
  }

  struct Gaps {
    double mean = 0;
    double worst = 0;
  };

  // Of `gap_of(task)` over the tasks that have one; 0 where none has.
  template <class GapOf>
  static Result<Gaps> OverTasks(const std::vector<Task>& tasks, const GapOf& gap_of) {
    Gaps gaps;
    int n = 0;
    for (const Task& task : tasks) {
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

  // Of the paper's reward the gap itself, of measured losses ln(1 + gap).
  Result<Gaps> LogGapsOf(const QNetwork& agent, const std::vector<Task>& tasks) {
    if (options_.reward == "paper") {
      return OverTasks(tasks, [&](const Task& task) { return PaperGap(agent, task); });
    }
    return LogGapsOf(RapPolicy("rap", agent.Clone(), subject_.importance), tasks);
  }
  Result<Gaps> LogGapsOf(const Policy& policy, const std::vector<Task>& tasks) {
    return OverTasks(tasks, [&](const Task& task) { return MeasuredGap(policy, task); });
  }
  static Gaps OfRatios(const Gaps& logs) { return {std::exp(logs.mean) - 1, std::exp(logs.worst) - 1}; }

  Status Judge() {
    ESPALIER_ASSIGN_OR_RETURN(Gaps gaps, LogGapsOf(*network_, judged_));
    gaps = options_.reward == "paper" ? gaps : OfRatios(gaps);
    report_.gaps.push_back({episodes_, Seconds(), gaps.mean, gaps.worst});
    return Status::Ok();
  }

  Result<std::optional<double>> PaperGap(const QNetwork& agent, const Task& task) {
    const double gamma = options_.training.dqn.gamma;
    const auto [optimum, fresh] = optima_.try_emplace(&task, 0.0);
    if (fresh) {
      const std::vector<double> values = BlockValues(task.observation, subject_.importance);
      ESPALIER_ASSIGN_OR_RETURN(const BestEpisode best, BestAdditiveEpisode(task.observation, values, gamma));
      optimum->second = best.value;
    }
    const double best = optimum->second;
    PruningEnvironment environment({.state = options_.training.network}, subject_.importance, reward_.get());
    ESPALIER_ASSIGN_OR_RETURN(const double value, Play(agent, &environment, task.observation, gamma));
    return best > 0 ? std::optional(1 - value / best) : std::nullopt;
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
      ESPALIER_ASSIGN_OR_RETURN(const Gaps logs, LogGapsOf(**policy, judged_));
      const Gaps gaps = OfRatios(logs);
      report_.rivals.push_back({name, gaps.mean, gaps.worst});
    }
    return Status::Ok();
  }

  // The plans that the agent serves most often and nobody has measured. False if there is none.
  template <class Tell>
  Result<bool> MeasureWhatItServes(const Tell& tell) {
    const Stopwatch watch;
    const RapPolicy agent("rap", network_->Clone(), subject_.importance);
    std::map<std::string, std::pair<int, Plan>> served;
    for (const Task& task : validation_) {
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
  std::vector<Task> judged_;              // that gaps are reported of
  std::vector<Task> validation_;          // that agents are chosen by, and from which plans to measure come
  std::map<const Task*, double> optima_;  // of the paper's reward: the same tasks are judged again and again
  std::unique_ptr<Reward> reward_;
  std::unique_ptr<LossSurrogate> surrogate_;
  std::unique_ptr<LossTable> table_;
  double caution_ = 0;
  std::map<std::string, double> guessed_;
  std::unique_ptr<QNetwork> network_;
  int64_t episodes_ = 0;
  int64_t planned_ = 0;     // at the end of the training
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
