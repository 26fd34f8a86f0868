#include "control/generation.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <span>

#include "base/check.h"

namespace espalier {
namespace {

using Clock = std::chrono::steady_clock;
constexpr SequenceId kSequence = 0;

double MillisecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

double PerSecond(int64_t tokens, double ms) { return ms > 0 ? static_cast<double>(tokens) * 1000 / ms : 0; }

// Speed over the last tokens, for the display.
class Speedometer {
 public:
  void Add(double ms) {
    ms_[next_ % ms_.size()] = ms;
    ++next_;
  }
  double tokens_per_second() const {
    const size_t n = std::min(next_, ms_.size());
    double sum = 0;
    for (size_t i = 0; i < n; ++i) {
      sum += ms_[i];
    }
    return PerSecond(static_cast<int64_t>(n), sum);
  }

 private:
  std::array<double, 16> ms_ = {};
  size_t next_ = 0;
};

}  // namespace

const char* StopReasonName(StopReason reason) {
  switch (reason) {
    case StopReason::kEndOfText:
      return "end of text";
    case StopReason::kMaxTokens:
      return "token limit";
    case StopReason::kContextFull:
      return "context full";
    case StopReason::kAborted:
      return "aborted";
  }
  return "";
}

double GenerationStatistics::prefill_tokens_per_second() const { return PerSecond(prompt_tokens, prefill_ms); }
double GenerationStatistics::decode_tokens_per_second() const { return PerSecond(decoded_tokens, decode_ms); }

// One run, step by step.
class Generation::Runner {
 public:
  Runner(Generation& owner, const GenerationOptions& options, GenerationObserver& observer)
      : owner_(owner),
        engine_(owner.engine_),
        controller_(owner.controller_),
        options_(options),
        observer_(observer),
        next_limit_(options.limits.begin()) {
    statistics_.prompt_tokens = static_cast<int64_t>(options.prompt.size());
  }

  Result<GenerationStatistics> Run() {
    ESPALIER_RETURN_IF_ERROR(Stoppable(Prefill()));
    while (!stopped_) {
      ESPALIER_RETURN_IF_ERROR(Stoppable(Step()));
    }
    return statistics_;
  }

 private:
  void Stop(StopReason reason) {
    stopped_ = true;
    statistics_.stop = reason;
  }

  // Being aborted ends the run, but is no error.
  Status Stoppable(Status status) {
    if (!status.ok() && status.code() == ErrorCode::kAborted) {
      Stop(StopReason::kAborted);
      return Status::Ok();
    }
    return status;
  }

  Status Decode(std::span<const int32_t> tokens, bool want_logits) {
    std::vector<BatchToken> batch;
    for (const int32_t token : tokens) {
      batch.push_back({token, kSequence, false});
    }
    batch.back().want_logits = want_logits;
    return engine_.Decode(
        batch, [this](int64_t, std::span<const float> logits) { logits_.assign(logits.begin(), logits.end()); });
  }

  Status Prefill() {
    const std::span<const int32_t> prompt = options_.prompt;
    owner_.sampler_.AcceptPrompt(prompt);
    const auto chunk = static_cast<size_t>(std::max<int64_t>(options_.prefill_chunk, 1));
    for (size_t at = 0; at < prompt.size(); at += chunk) {
      if (owner_.aborted_.load(std::memory_order_relaxed)) {
        return Aborted("stopped in the prompt");
      }
      const std::span<const int32_t> part = prompt.subspan(at, std::min(chunk, prompt.size() - at));
      const auto start = Clock::now();
      ESPALIER_RETURN_IF_ERROR(Decode(part, at + part.size() == prompt.size()));
      statistics_.prefill_ms += MillisecondsSince(start);
      observer_.OnPrefill(static_cast<int64_t>(at + part.size()), static_cast<int64_t>(prompt.size()));
    }
    Watch();
    if (options_.max_tokens == 0) {
      Stop(StopReason::kMaxTokens);
    }
    return Status::Ok();
  }

  // One token out of the logits, what memory asks for, and the logits after it.
  Status Step() {
    const auto sample_start = Clock::now();
    const int32_t token = owner_.sampler_.Sample(logits_);
    ESPALIER_RETURN_IF_ERROR(owner_.sampler_.Accept(token));
    double step_ms = MillisecondsSince(sample_start);
    if (owner_.tokenizer_.is_end_of_generation(token)) {
      Stop(StopReason::kEndOfText);
      return Status::Ok();
    }
    ++statistics_.generated_tokens;
    observer_.OnToken(token, owner_.tokenizer_.Piece(token, false), State());
    if (statistics_.generated_tokens >= options_.max_tokens) {
      Stop(StopReason::kMaxTokens);
    } else if (engine_.SequenceLength(kSequence) >= engine_.capacity_cells()) {
      Stop(StopReason::kContextFull);
    } else if (owner_.aborted_.load(std::memory_order_relaxed)) {
      Stop(StopReason::kAborted);
    }
    if (stopped_) {
      return Status::Ok();
    }
    ESPALIER_RETURN_IF_ERROR(TendMemory());
    const auto decode_start = Clock::now();
    ESPALIER_RETURN_IF_ERROR(Decode({&token, 1}, true));
    step_ms += MillisecondsSince(decode_start);
    statistics_.decode_ms += step_ms;
    ++statistics_.decoded_tokens;
    speed_.Add(step_ms);
    Watch();
    return Status::Ok();
  }

  // Due changes of the limit, then one helping of what may come back, then the sequence's missing rows.
  Status TendMemory() {
    while (next_limit_ != options_.limits.end() && next_limit_->at_token <= statistics_.generated_tokens) {
      ESPALIER_RETURN_IF_ERROR(Report(controller_.SetLimit(next_limit_->limit_bytes)));
      ++next_limit_;
    }
    if (controller_.loading()) {
      ESPALIER_RETURN_IF_ERROR(Report(controller_.Load()));
      skipped_may_return_ = true;
    }
    if (skipped_may_return_ && !controller_.loading()) {
      skipped_may_return_ = false;
      if (ReprefillPays() && !engine_.SkippedBlocks(kSequence).empty()) {
        ESPALIER_RETURN_IF_ERROR(Report(controller_.Reprefill(kSequence)));
        ++statistics_.reprefills;
      }
    }
    return Status::Ok();
  }

  bool ReprefillPays() const {
    const int64_t length = engine_.SequenceLength(kSequence);
    const int64_t to_come =
        std::min(options_.max_tokens - statistics_.generated_tokens, engine_.capacity_cells() - length);
    return static_cast<double>(length) <= options_.reprefill_ratio * static_cast<double>(to_come);
  }

  Status Report(Result<TransitionEvent> event) {
    ESPALIER_RETURN_IF_ERROR(event.status());
    event->at_token = statistics_.generated_tokens;
    ++statistics_.transitions;
    statistics_.transition_ms += event->ms;
    statistics_.peak_used_bytes =
        std::max(statistics_.peak_used_bytes, event->moved.peak_bytes + controller_.process_bytes());
    observer_.OnTransition(*event);
    return Status::Ok();
  }

  // At a step boundary: is the budget kept?
  void Watch() {
    const uint64_t used = engine_.memory_in_use().total() + controller_.process_bytes();
    statistics_.peak_used_bytes = std::max(statistics_.peak_used_bytes, used);
    statistics_.violations += used > controller_.limit_bytes() ? 1 : 0;
  }

  StepState State() const {
    StepState state;
    state.generated_tokens = statistics_.generated_tokens;
    state.max_tokens = options_.max_tokens;
    state.plan = &engine_.plan();
    state.pending = &controller_.pending();
    state.limit_bytes = controller_.limit_bytes();
    state.process_bytes = controller_.process_bytes();
    state.predicted_bytes = PredictNow(engine_).managed_bytes();
    state.managed_bytes = engine_.memory_in_use().total();
    state.tokens_per_second = speed_.tokens_per_second();
    return state;
  }

  Generation& owner_;
  Engine& engine_;
  Controller& controller_;
  const GenerationOptions& options_;
  GenerationObserver& observer_;
  std::vector<LimitChange>::const_iterator next_limit_;
  std::vector<float> logits_;
  GenerationStatistics statistics_;
  Speedometer speed_;
  bool stopped_ = false;
  bool skipped_may_return_ = false;
};

Result<GenerationStatistics> Generation::Run(const GenerationOptions& options, GenerationObserver& observer) {
  ESPALIER_CHECK(!options.prompt.empty() && engine_.SequenceLength(kSequence) == 0);
  const auto prompt_tokens = static_cast<int64_t>(options.prompt.size());
  if (prompt_tokens > engine_.capacity_cells()) {
    return InvalidArgument(
        fmt::format("prompt of {} tokens: the context holds {}", prompt_tokens, engine_.capacity_cells()));
  }
  return Runner(*this, options, observer).Run();
}

}  // namespace espalier
