// The parts of ParseCompletionRequest: each reads some fields into the request, and leaves an error in `fields`.
#pragma once

#include "server/api_fields.h"
#include "server/completion_request.h"

namespace espalier {

// "prompt": a string; token ids; a list of those; strings and ids mixed in one sequence; {"prompt_string": "..."}.
void ReadPrompts(const RequestDefaults& defaults, FieldReader* fields, CompletionRequest* request);
// "messages", "add_generation_prompt", "continue_final_message"; refuses tools.
void ReadMessages(FieldReader* fields, CompletionRequest* request);
// Sampling fields and biases.
void ReadSampling(const RequestDefaults& defaults, FieldReader* fields, CompletionRequest* request);
// "grammar", "json_schema", "response_format". `body` is the text that `object` was parsed from.
void ReadGrammar(std::string_view body, const nlohmann::json& object, FieldReader* fields, CompletionRequest* request);

}  // namespace espalier
