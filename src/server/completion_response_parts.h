// Parts that whole and streamed answers share.
#pragma once

#include <span>

#include "server/completion_response.h"

namespace espalier {

// OpenAI's legacy form: {"tokens", "token_logprobs", "top_logprobs", "text_offset"}. A token that is not whole
// characters is shown as "bytes:\xe2\x80". The chosen token is always among the top ones, even if it makes one more.
nlohmann::ordered_json LegacyLogprobs(std::span<const TokenAnswer> tokens);
// [{"id", "token", "bytes", "logprob", "top_logprobs": [...]}]: OpenAI's chat form and llama-server's.
nlohmann::ordered_json TokenLogprobs(std::span<const TokenAnswer> tokens);
// The "logprobs" member of a choice, null if there are none.
nlohmann::ordered_json LogprobsMember(ApiKind kind, std::span<const TokenAnswer> tokens);

// llama-server's final object of one choice.
nlohmann::ordered_json NativeFinal(const AnswerHead& head, const CompletionRequest& request,
                                   const ChoiceAnswer& choice);

std::string DumpJson(const nlohmann::ordered_json& json);

}  // namespace espalier
