// The generation loop of one sequence: prompt, tokens, and a budget that may change between any two of them. No
// printing: whoever watches implements GenerationObserver.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "control/controller.h"
#include "runtime/engine.h"
#include "text/sampler.h"
#include "text/tokenizer.h"

namespace espalier {

struct LimitChange {
  int64_t at_token = 0;      // takes effect when so many tokens have been generated
  uint64_t limit_bytes = 0;  // on managed + process bytes
};

struct GenerationOptions {
  std::vector<int32_t> prompt;      // not empty
  int64_t max_tokens = 0;           // to generate; 0: evaluate the prompt only
  int64_t prefill_chunk = 512;      // prompt tokens between two chances to abort
  std::vector<LimitChange> limits;  // by rising at_token
  // Attention blocks that came back are skipped by the running sequence until it is prefilled again. That is done as
  // soon as all have come back, if the sequence has at most this many times the tokens that are still to come: prefill
  // takes about a seventh of decode's time per token, so 4 spends about half of the time that remains. Else it serves
  // on without those blocks. A ratio of tokens and not of measured times, so that a run can be repeated. 0: never.
  double reprefill_ratio = 4;
};

enum class StopReason { kEndOfText, kMaxTokens, kContextFull, kAborted };
const char* StopReasonName(StopReason reason);  // "end of text", "token limit", "context full", "aborted"

struct GenerationStatistics {
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;
  double prefill_ms = 0;
  double decode_ms = 0;        // of the decode steps, sampling included, transitions left out
  int64_t decoded_tokens = 0;  // steps in decode_ms: the first token comes out of the prefill
  double transition_ms = 0;    // release, load and prefilling again
  int transitions = 0;
  int reprefills = 0;
  uint64_t peak_used_bytes = 0;  // managed + process at the step boundaries and in transitions
  int64_t violations = 0;        // step boundaries with more than the limit in use
  StopReason stop = StopReason::kMaxTokens;

  double prefill_tokens_per_second() const;
  double decode_tokens_per_second() const;
};

// The state after one token, for displays.
struct StepState {
  int64_t generated_tokens = 0;
  int64_t max_tokens = 0;
  const Plan* plan = nullptr;                     // resident
  const std::vector<BlockId>* pending = nullptr;  // still to be loaded
  uint64_t limit_bytes = 0;
  uint64_t process_bytes = 0;
  uint64_t predicted_bytes = 0;  // managed, at rest
  uint64_t managed_bytes = 0;    // by the engine's books
  double tokens_per_second = 0;  // over the last tokens
};

class GenerationObserver {
 public:
  virtual ~GenerationObserver() = default;
  // After each chunk of the prompt.
  virtual void OnPrefill(int64_t /*done*/, int64_t /*total*/) {}
  // `piece` may be part of a UTF-8 sequence, and is valid during the call only.
  virtual void OnToken(int32_t token, std::string_view piece, const StepState& state) = 0;
  virtual void OnTransition(const TransitionEvent& event) = 0;
};

// Thread rule: one thread runs it; RequestAbort may come from any thread and from a signal handler.
class Generation {
 public:
  // All must outlive the generation; `controller` steers `engine`.
  Generation(Engine& engine, const Tokenizer& tokenizer, Sampler& sampler, Controller& controller)
      : engine_(engine), tokenizer_(tokenizer), sampler_(sampler), controller_(controller) {}

  // Runs from the prompt to the end in sequence 0, which must be empty, and leaves the sequence there.
  // Being aborted is not an error. Fails with kInvalidArgument if the prompt does not fit into the engine's cells, and
  // with whatever engine, sampler or policy report; what was generated before has been handed to `observer`.
  Result<GenerationStatistics> Run(const GenerationOptions& options, GenerationObserver& observer);

  void RequestAbort() {
    aborted_.store(true, std::memory_order_relaxed);
    engine_.RequestAbort();
  }

 private:
  class Runner;
  Engine& engine_;
  const Tokenizer& tokenizer_;
  Sampler& sampler_;
  Controller& controller_;
  std::atomic<bool> aborted_ = false;
};

}  // namespace espalier
