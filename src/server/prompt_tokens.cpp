#include "server/prompt_tokens.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <utility>

namespace espalier {
namespace {

// A text that cannot possibly fit is refused before time is spent on it: tokenising a few dozen megabytes takes
// seconds. Tokenisers may join spaces, so with a margin.
std::optional<ApiError> RefuseHugeText(const Served& served, size_t bytes) {
  constexpr size_t kMargin = 4;
  constexpr size_t kAlways = 64 * 1024;
  const size_t most = kMargin * served.longest_piece * static_cast<size_t>(served.context_tokens);
  if (served.longest_piece == 0 || bytes <= std::max(most, kAlways)) {
    return std::nullopt;
  }
  const auto least = static_cast<int64_t>(bytes / served.longest_piece);
  ApiError error =
      InvalidRequest("prompt", fmt::format("the prompt has {} bytes, at least {} tokens: the context holds {}", bytes,
                                           least, served.context_tokens));
  error.type = "exceed_context_size_error";
  error.numbers = {{"n_prompt_tokens", least}, {"n_ctx", served.context_tokens}};
  return error;
}

size_t BytesOf(const Prompt& prompt) {
  size_t bytes = 0;
  for (const PromptPiece& piece : prompt) {
    const auto* text = std::get_if<std::string>(&piece);
    bytes += text != nullptr ? text->size() : 0;
  }
  return bytes;
}

size_t BytesOf(std::span<const ChatMessage> messages) {
  size_t bytes = 0;
  for (const ChatMessage& message : messages) {
    bytes += message.content.size();
  }
  return bytes;
}

Result<std::vector<int32_t>> TokensOfPieces(const Tokenizer& tokenizer, const Prompt& prompt) {
  std::vector<int32_t> tokens;
  bool first = true;
  for (const PromptPiece& piece : prompt) {
    if (const auto* ids = std::get_if<std::vector<int32_t>>(&piece)) {
      tokens.insert(tokens.end(), ids->begin(), ids->end());
    } else {
      ESPALIER_ASSIGN_OR_RETURN(const std::vector<int32_t> more,
                                tokenizer.Encode(std::get<std::string>(piece), first, true));
      tokens.insert(tokens.end(), more.begin(), more.end());
    }
    first = false;
  }
  return tokens;
}

Result<std::vector<int32_t>> TokensOfChat(const Served& served, const CompletionRequest& request) {
  ESPALIER_ASSIGN_OR_RETURN(const std::string text, ChatText(served, request));
  return served.tokenizer->Encode(text, true, true);
}

ApiResult<std::vector<int32_t>> Checked(const Served& served, Result<std::vector<int32_t>> tokens) {
  if (!tokens.ok()) {
    return ErrorFromStatus(tokens.status());
  }
  if (tokens->empty()) {
    return InvalidRequest("prompt", "the prompt has no tokens");
  }
  const auto n = static_cast<int64_t>(tokens->size());
  if (n > served.context_tokens) {
    ApiError error = InvalidRequest(
        "prompt", fmt::format("the prompt has {} tokens: the context holds {}", n, served.context_tokens));
    error.type = "exceed_context_size_error";  // llama-server's
    error.numbers = {{"n_prompt_tokens", n}, {"n_ctx", served.context_tokens}};
    return error;
  }
  return *std::move(tokens);
}

}  // namespace

Result<std::string> ChatText(const Served& served, const CompletionRequest& request) {
  std::span<const ChatMessage> messages = request.messages;
  std::string begun;  // by the assistant, for the model to go on with
  if (request.continue_final_message) {
    begun = messages.back().content;
    messages = messages.first(messages.size() - 1);
  }
  ESPALIER_ASSIGN_OR_RETURN(const std::string text,
                            ApplyChatTemplate(*served.model, messages, request.add_generation_prompt));
  return text + begun;
}

ApiResult<std::vector<std::vector<int32_t>>> PromptTokens(const Served& served, const CompletionRequest& request) {
  std::vector<std::vector<int32_t>> prompts;
  const size_t n = request.kind == ApiKind::kChat ? 1 : request.prompts.size();
  for (size_t i = 0; i < n; ++i) {
    const size_t bytes = request.kind == ApiKind::kChat ? BytesOf(request.messages) : BytesOf(request.prompts[i]);
    if (auto refusal = RefuseHugeText(served, bytes)) {
      return *std::move(refusal);
    }
    auto tokens =
        Checked(served, request.kind == ApiKind::kChat ? TokensOfChat(served, request)
                                                       : TokensOfPieces(*served.tokenizer, request.prompts[i]));
    if (IsError(tokens)) {
      return std::get<ApiError>(std::move(tokens));
    }
    prompts.push_back(std::get<0>(std::move(tokens)));
  }
  return prompts;
}

int64_t AnswerTokens(const Served& served, int64_t asked, int64_t prompt_tokens) {
  // The last token of an answer is not computed, so it needs no room.
  const auto room = [&](int64_t cells) { return cells - prompt_tokens + 1; };
  const int64_t most = room(served.context_tokens);
  if (asked != CompletionRequest::kUnlimited) {
    return std::min(asked, most);
  }
  const int64_t largest = served.loop->snapshot().largest_request_cells;
  return std::clamp<int64_t>(room(largest), 1, most);
}

ApiResult<SamplerOptions> SamplingOf(const Served& served, const CompletionRequest& request) {
  SamplerOptions options = request.sampling;
  FitToContext(served.context_tokens, &options);
  for (const TextBias& bias : request.text_biases) {
    const auto tokens = served.tokenizer->Encode(bias.text, false, false);
    if (!tokens.ok()) {
      return ErrorFromStatus(tokens.status());
    }
    for (const int32_t token : *tokens) {
      options.logit_bias.push_back({token, bias.bias});
    }
  }
  const auto sampler = Sampler::Create(*served.tokenizer, options);
  if (!sampler.ok()) {
    ApiError error = ErrorFromStatus(sampler.status());
    // Everything else was checked when it was read.
    if (!request.grammar_field.empty()) {
      error.param = request.grammar_field;
      error.message = fmt::format("field '{}': {}", request.grammar_field, error.message);
    }
    return error;
  }
  return options;
}

uint32_t SeedOf(uint32_t asked, int choice) {
  const bool draw = asked == SamplerOptions::kRandomSeed;
  const uint32_t seed = draw ? std::random_device()() : asked + static_cast<uint32_t>(choice);
  return seed == SamplerOptions::kRandomSeed ? 0 : seed;  // which would be another one when the sampler is made
}

SamplerMaker MakerOf(const Served& served, std::shared_ptr<const SamplerOptions> options, uint32_t seed) {
  return [tokenizer = served.tokenizer, options = std::move(options), seed] {
    SamplerOptions own = *options;
    own.seed = seed;
    return Sampler::Create(*tokenizer, own);
  };
}

}  // namespace espalier
