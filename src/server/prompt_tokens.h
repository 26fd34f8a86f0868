// Prompts and limits of a completion request, in tokens of the model that is served.
#pragma once

#include <cstdint>
#include <vector>

#include "server/api_error.h"
#include "server/completion_request.h"
#include "server/served.h"

namespace espalier {

// The messages of a chat, rendered by the model's template.
Result<std::string> ChatText(const Served& served, const CompletionRequest& request);

// The prompts in tokens, chat messages rendered by the model's template: one for each entry of `prompts`, one for a
// chat. 400 naming both numbers where one does not fit the context, or has no tokens.
ApiResult<std::vector<std::vector<int32_t>>> PromptTokens(const Served& served, const CompletionRequest& request);

// Tokens to generate after a prompt of `prompt_tokens`: what is asked for, as far as the context goes. A request that
// does not say gets all of its context, or what the budget has room for.
int64_t AnswerTokens(const Served& served, int64_t asked, int64_t prompt_tokens);

// The sampler of choice `choice`: a fixed seed is another one for each.
ApiResult<std::unique_ptr<Sampler>> MakeSampler(const Served& served, const CompletionRequest& request, int choice);

}  // namespace espalier
