// Prompts, limits and samplers of a completion request, by the model that is served.
#pragma once

#include <cstdint>
#include <memory>
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

// How to sample: of the request and, where it does not say, the server; biases of texts are among those of tokens. A
// sampler was made of them once: 400 naming the field where none can be.
ApiResult<SamplerOptions> SamplingOf(const Served& served, const CompletionRequest& request);

// The seed of choice `choice`: one that was asked for is another one for each, else it is drawn.
uint32_t SeedOf(uint32_t asked, int choice);

// `options` are what all choices share.
SamplerMaker MakerOf(const Served& served, std::shared_ptr<const SamplerOptions> options, uint32_t seed);

}  // namespace espalier
