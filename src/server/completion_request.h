// What a client asks for, out of the JSON of three APIs: OpenAI's completions, OpenAI's chat completions, and
// llama-server's native /completion. Pure: no socket, no tokenizer, no engine.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "server/api_error.h"
#include "text/sampler.h"

namespace espalier {

enum class ApiKind {
  kCompletion,  // POST /v1/completions
  kChat,        // POST /v1/chat/completions
  kNative,      // POST /completion
};

// Text to tokenise, or tokens as they are.
using PromptPiece = std::variant<std::string, std::vector<int32_t>>;
using Prompt = std::vector<PromptPiece>;  // one sequence: pieces one after another; never empty, its texts may be

struct TextBias {
  std::string text;  // every token of it gets the bias
  float bias = 0;
};

struct CompletionRequest {
  static constexpr int64_t kUnlimited = -1;

  ApiKind kind = ApiKind::kCompletion;
  std::string model;  // as asked for; may be empty

  std::vector<Prompt> prompts;        // kCompletion, kNative: at least one
  bool several_prompts = false;       // asked as a list, also of one: kNative answers with a list
  std::vector<ChatMessage> messages;  // kChat: at least one
  // kChat: the last message is the assistant's, and the answer goes on with it: render the others with
  // `add_generation_prompt`, then append its content (llama-server does so, too).
  bool continue_final_message = false;
  bool add_generation_prompt = true;

  SamplerOptions sampling;            // with the server's defaults for what was not given; grammar: GBNF
  std::string grammar_field;          // what the grammar came from: "grammar", "json_schema", ...
  std::vector<TextBias> text_biases;  // to be tokenised and added to sampling.logit_bias

  int64_t max_tokens = kUnlimited;  // 0: only the prompt
  // Milliseconds after the first token, when the answer ends as soon as it has a line; <= 0: no limit.
  int64_t max_predict_ms = 0;
  int n = 1;                      // choices per prompt
  std::vector<std::string> stop;  // not empty strings, valid UTF-8
  int n_top = -1;                 // as LoopRequest::n_top
  bool echo = false;              // kCompletion: the prompt first, and its scores if n_top >= 0
  bool stream = false;
  bool include_usage = false;  // a last chunk with usage
  bool cache_prompt = true;
  bool return_tokens = false;
  bool timings_per_token = false;
  std::vector<std::string> response_fields;  // kNative: only these members of the final answer; empty: all

  int64_t n_choices() const { return static_cast<int64_t>(kind == ApiKind::kChat ? 1 : prompts.size()) * n; }
};

// What the server knows.
struct RequestDefaults {
  SamplerOptions sampling;
  int64_t max_tokens = CompletionRequest::kUnlimited;  // then kCompletion has OpenAI's 16
  int32_t n_vocab = INT32_MAX;                         // token ids are below it
  int64_t max_choices = 1024;                          // prompts times n, of one request
};

// Fields that we do not know are ignored; null means absent. Everything else is checked: 400 naming the field
// (`param`), what was expected and what was found; also for what we cannot do (tools, suffix, images,
// post_sampling_probs, another order of samplers). 501 for LoRA.
ApiResult<CompletionRequest> ParseCompletionRequest(ApiKind kind, std::string_view body,
                                                    const RequestDefaults& defaults);

}  // namespace espalier
