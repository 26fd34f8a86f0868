// What the engine loop runs, and what it tells about it. No HTTP and no text here: tokens in, tokens out.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/plan.h"
#include "policy/policy.h"
#include "text/sampler.h"

namespace espalier {

using RequestId = uint64_t;

struct ScoredToken {
  int32_t token = 0;
  float logprob = 0;  // ln of the model's probability, before any sampler: temperature 1, no bias, no cut
};

// A token and what else the model thought likely at its place, the likeliest first.
struct TokenScores {
  ScoredToken chosen;
  std::vector<ScoredToken> top;  // as many as were asked for
};

enum class FinishReason {
  kEndOfText,  // the model ended its answer
  kLength,     // max_tokens, or the context is full
  kCancelled,  // Cancel()
  kFailed,     // RequestEnd::status says why
  kShutdown,   // the loop was stopped while it ran
};
const char* FinishReasonName(FinishReason reason);  // "end of text", "length", "cancelled", "failed", "shutdown"

// How a request went. Times by the loop's clock.
struct RequestEnd {
  FinishReason reason = FinishReason::kEndOfText;
  Status status;  // of kFailed
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;     // of the prompt: taken over from an earlier request, not computed
  int64_t generated_tokens = 0;  // handed to OnToken
  int preemptions = 0;           // times it had to give its memory up and was computed again
  double queue_ms = 0;           // from Submit to the first work on it
  double prefill_ms = 0;         // from there to the first token
  double decode_ms = 0;          // from the first token to the last
  double total_ms() const { return queue_ms + prefill_ms + decode_ms; }
  // What answered last: the resident plan and what it is predicted to lose, as far as is known.
  std::string plan_text;
  std::optional<PredictedLoss> loss;
  int plan_changes = 0;  // transitions during the answer
};

// Where answers go. Called on the engine thread, in order; must not block and may call EngineLoop::Cancel, but nothing
// else of the loop.
class RequestListener {
 public:
  virtual ~RequestListener() = default;
  // Of a request with prompt_scores, before the first token: scores[i] is of prompt token i + 1.
  virtual void OnPromptScores(std::vector<TokenScores> /*scores*/) {}
  // After each stretch of the prompt; `done` counts cached tokens too.
  virtual void OnPrefill(int64_t /*done*/, int64_t /*total*/) {}
  // Every generated token but one that ends the text. `scores.top` and logprob are filled in if n_top >= 0.
  virtual void OnToken(const TokenScores& scores) = 0;
  // Exactly once, and nothing after it.
  virtual void OnEnd(const RequestEnd& end) = 0;
};

using SamplerMaker = std::function<Result<std::unique_ptr<Sampler>>()>;

struct LoopRequest {
  std::vector<int32_t> prompt;  // not empty
  int64_t max_tokens = 0;       // to generate; 0: only the prompt is computed. KV is reserved for all of them
  // A fresh sampler; needed if max_tokens > 0. Called once, on the engine thread, when the request is first admitted,
  // so that those that wait hold no grammar. A failure is the request's end.
  SamplerMaker make_sampler;
  int n_top = -1;              // likeliest tokens told with each token; 0: its own probability only; -1: neither
  bool prompt_scores = false;  // tell the scores of the prompt, too; computes all of it anew
  bool cache_prompt = true;    // may begin with what an earlier request computed, and leave its own to a later one
  std::shared_ptr<RequestListener> listener;
};

// What a running or waiting request looks like from outside.
struct RequestView {
  RequestId id = 0;
  enum class State { kWaiting, kPrefill, kDecode } state = State::kWaiting;
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t prefilled_tokens = 0;  // cached ones included
  int64_t generated_tokens = 0;
  int64_t max_tokens = 0;
};

}  // namespace espalier
