// Answers as JSON, whole or as a stream of server-sent events, the way OpenAI's and llama-server's clients read them.
// Pure: tokens, texts and times come from the caller.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/api_error.h"
#include "server/completion_request.h"
#include "serving/request.h"

namespace espalier {

struct ScoredPiece {
  int32_t token = 0;
  std::string piece;  // its bytes; may be part of a character
  float logprob = 0;
};

struct TokenAnswer {
  ScoredPiece chosen;
  std::vector<ScoredPiece> top;  // the likeliest first
  int64_t text_offset = 0;       // code points of the choice's text before it (TextStream::characters)
  bool scored = true;            // false: the first token of an echoed prompt, which nothing predicts
};

// One choice that has ended. (Streams need only what is not marked "whole".)
struct ChoiceAnswer {
  int index = 0;                    // prompt times n + choice
  std::string text;                 // whole; without the stop string; of `echo` with the prompt before it
  std::string prompt_text;          // whole, kNative
  std::vector<int32_t> tokens;      // whole, kNative: as generated
  std::vector<TokenAnswer> scores;  // whole; of `echo` with the prompt's before them; empty: none asked for
  std::string stopping_word;        // empty: not ended by a stop string
  bool has_new_line = false;        // kNative
  uint32_t seed = 0;                // kNative: the sampler's
  RequestEnd end;
};

// What all parts of an answer have in common.
struct AnswerHead {
  std::string id;           // "cmpl-..." or "chatcmpl-..."
  int64_t created = 0;      // Unix time in seconds
  std::string model;        // as it is served, not as it was asked for
  std::string fingerprint;  // "system_fingerprint"
};

enum class StopKind { kNone, kEndOfText, kLimit, kWord };
// A stop string counts whatever `reason` is: whoever finds one cancels the request.
StopKind StopKindOf(FinishReason reason, bool stopping_word);
const char* StopTypeName(StopKind kind);  // llama-server's: "none", "eos", "limit", "word"
// OpenAI's: "stop", "length", or null for kNone.
nlohmann::ordered_json FinishReasonJson(StopKind kind);
// The answer to a request that ended without a result: 503 for kShutdown, ErrorFromStatus for kFailed; otherwise none.
std::optional<ApiError> ErrorOfEnd(const RequestEnd& end);

// llama-server's members. Rates are 0 where nothing was measured; decode_ms covers the intervals between tokens, so
// rates of generation count one token less than there were. Of several requests: sums.
nlohmann::ordered_json TimingsJson(std::span<const RequestEnd* const> ends);
// {"plan", "predicted_loss_nats", "predicted_loss_measured", "plan_changes", "preemptions"}: of the last request; of
// several, the most plan changes and all preemptions.
nlohmann::ordered_json EspalierJson(std::span<const RequestEnd* const> ends);
// Prompt tokens once per prompt, however many choices it has.
nlohmann::ordered_json UsageJson(const CompletionRequest& request, std::span<const ChoiceAnswer> choices);
// Of llama-server's native answers; `max_tokens` as it was in the end.
nlohmann::ordered_json GenerationSettingsJson(const CompletionRequest& request, uint32_t seed);

// The body of a whole answer. `choices` by index; all of them.
std::string WholeAnswer(const AnswerHead& head, const CompletionRequest& request,
                        std::span<const ChoiceAnswer> choices);

// Server-sent events.
std::string SseEvent(std::string_view json);  // "data: {...}\n\n"
std::string SseError(const ApiError& error);  // "data: {"error": {...}}\n\n"
inline constexpr std::string_view kSseDone = "data: [DONE]\n\n";

// What is new of one choice.
struct StreamPart {
  int index = 0;
  std::string_view text;            // may be empty
  std::span<const int32_t> tokens;  // kNative
  std::span<const TokenAnswer> scores;
  int64_t prompt_tokens = 0;           // kNative
  int64_t generated_tokens = 0;        // kNative: so far
  const RequestEnd* so_far = nullptr;  // with timings_per_token: what it would be if it ended now
};

// Makes the events of one streamed answer: for each choice Begin, Part..., Finish; at last End. Thread rule: one thread
// at a time. A Part without scores takes a fraction of a microsecond: what does not change is written once.
class AnswerStream {
 public:
  AnswerStream(AnswerHead head, const CompletionRequest& request);

  // kChat: the role. Otherwise nothing (an empty string, not to be sent).
  std::string Begin(int index) const;
  std::string Part(const StreamPart& part) const;
  // finish_reason, and "timings" and "espalier" unless a chunk with usage follows.
  std::string Finish(const ChoiceAnswer& choice) const;
  // Usage if it was asked for, and [DONE] (which llama-server's native API does not have).
  std::string End(std::span<const ChoiceAnswer> choices) const;

 private:
  nlohmann::ordered_json Chunk(nlohmann::ordered_json choices) const;

  AnswerHead head_;
  CompletionRequest request_;  // without prompts and messages
  std::string tail_;           // what follows the choices in each chunk
};

}  // namespace espalier
