#include "cli/run_display.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <thread>
#include <utility>

#include "base/bytes.h"
#include "base/process_memory.h"
#include "cli/panel.h"
#include "cli/terminal.h"
#include "control/transition_text.h"

namespace espalier {
namespace {

using Clock = std::chrono::steady_clock;

// Blocks come back a few at a time; people read of it once, when all are there.
class LoadMerger {
 public:
  // The event to tell people of, if it is time.
  std::optional<TransitionEvent> Add(const TransitionEvent& event) {
    if (event.reason != TransitionEvent::Reason::kLoad) {
      merged_.reset();
      return event;
    }
    if (!merged_) {
      merged_ = event;
    } else {
      merged_->plan_after = event.plan_after;
      merged_->pending = event.pending;
      merged_->predicted_bytes_after = event.predicted_bytes_after;
      merged_->after = event.after;
      merged_->moved.n_loaded += event.moved.n_loaded;
      merged_->moved.loaded_bytes += event.moved.loaded_bytes;
      merged_->ms += event.ms;
    }
    return event.pending.empty() ? std::exchange(merged_, std::nullopt) : std::nullopt;
  }

 private:
  std::optional<TransitionEvent> merged_;
};

// Holds tokens back so that a reader can follow.
class Pacer {
 public:
  explicit Pacer(double per_second) : per_second_(per_second) {}
  void Wait() {
    if (per_second_ > 0) {
      due_ = std::max(due_, Clock::now()) +
             std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(1 / per_second_));
      std::this_thread::sleep_until(due_);
    }
  }

 private:
  double per_second_;
  Clock::time_point due_;
};

class PlainDisplay final : public RunDisplay {
 public:
  explicit PlainDisplay(const RunDisplayOptions& options)
      : print_text_(!options.json), pacer_(options.max_tokens_per_second) {}

  void OnToken(int32_t, std::string_view piece, const StepState&) override {
    text_ += piece;
    if (print_text_) {
      std::fwrite(piece.data(), 1, piece.size(), stdout);
      std::fflush(stdout);
    }
    pacer_.Wait();
  }

  void OnTransition(const TransitionEvent& event) override {
    transitions_.push_back(event);
    if (const auto told = merger_.Add(event)) {
      fmt::print(stderr, "espalier: {}\n", DescribeTransitionInFull(*told));
    }
  }

  void Finish() override {
    if (print_text_ && !text_.empty()) {
      fmt::print("\n");
      std::fflush(stdout);
    }
  }

 private:
  bool print_text_;
  LoadMerger merger_;
  Pacer pacer_;
};

class PanelDisplay final : public RunDisplay {
 public:
  PanelDisplay(std::unique_ptr<LivePanel> panel, const Placement& placement, const RunDisplayOptions& options)
      : panel_(std::move(panel)), placement_(placement), pacer_(options.max_tokens_per_second) {
    state_.title = options.title;
    state_.plan = placement.plan;
    state_.process_bytes = placement.survey.base.process_bytes;
    ShowLimit(placement.limit_bytes());
    panel_->WriteDim(TerminalText().Add(options.prompt));
    panel_->Draw(state_);
  }

  void OnToken(int32_t, std::string_view piece, const StepState& step) override {
    text_ += piece;
    panel_->Write(terminal_text_.Add(piece));
    state_.plan = *step.plan;
    state_.pending = *step.pending;
    state_.generated_tokens = step.generated_tokens;
    state_.max_tokens = step.max_tokens;
    state_.tokens_per_second = step.tokens_per_second;
    state_.process_bytes = step.process_bytes;
    state_.predicted_bytes = step.predicted_bytes;
    state_.managed_bytes = step.managed_bytes;
    ShowLimit(step.limit_bytes);
    AskKernel();
    panel_->Draw(state_);
    pacer_.Wait();
  }

  void OnTransition(const TransitionEvent& event) override {
    transitions_.push_back(event);
    state_.kernel_bytes = event.after.measured_managed_bytes();
    asked_kernel_ = Clock::now();
    if (const auto told = merger_.Add(event)) {
      state_.last_event = DescribeAtToken(*told);
    }
  }

  void Finish() override { panel_->Finish(); }

 private:
  void ShowLimit(uint64_t limit_bytes) {
    if (limit_bytes == Placement::kUnlimited) {
      return;
    }
    const BudgetBase& base = placement_.survey.base;
    state_.budget_bytes = limit_bytes;
    state_.budget_percent = 100 * (static_cast<double>(limit_bytes) - static_cast<double>(base.process_bytes)) /
                            static_cast<double>(base.dense_peak_bytes);
  }

  // Walking the process's mappings takes about a millisecond: not for every token.
  void AskKernel() {
    const auto now = Clock::now();
    if (now - asked_kernel_ < std::chrono::milliseconds(250)) {
      return;
    }
    asked_kernel_ = now;
    const auto process = ReadProcessMemory();
    if (process.ok() && process->anonymous_bytes > state_.process_bytes) {
      state_.kernel_bytes = process->anonymous_bytes - state_.process_bytes;
    }
  }

  std::unique_ptr<LivePanel> panel_;
  const Placement& placement_;
  Pacer pacer_;
  PanelState state_;
  TerminalText terminal_text_;
  LoadMerger merger_;
  Clock::time_point asked_kernel_;
};

}  // namespace

std::string DescribeAtToken(const TransitionEvent& event) {
  return fmt::format("token {}: {}", event.at_token, DescribeTransition(event));
}

std::string DescribeTransitionInFull(const TransitionEvent& event) {
  const std::string loss =
      event.loss && event.reason != TransitionEvent::Reason::kReprefill
          ? fmt::format("; {}{}", DescribeLoss(event.loss), event.pending.empty() ? "" : " once they are back")
          : "";
  return fmt::format("{};{}{} managed {} -> {} (predicted {}, kernel {}){}", DescribeAtToken(event),
                     ChangedBlocks(event), event.plan_after == event.plan_before ? "" : ";",
                     FormatBytes(event.before.managed.total()), FormatBytes(event.after.managed.total()),
                     FormatBytes(event.predicted_bytes_after), FormatBytes(event.after.measured_managed_bytes()), loss);
}

std::unique_ptr<RunDisplay> RunDisplay::Create(const Placement& placement, const RunDisplayOptions& options) {
  if (!options.json && !options.no_panel) {
    auto panel = std::make_unique<LivePanel>();
    if (panel->Start()) {
      return std::make_unique<PanelDisplay>(std::move(panel), placement, options);
    }
  }
  return std::make_unique<PlainDisplay>(options);
}

}  // namespace espalier
