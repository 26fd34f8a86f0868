#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "server/completion_request_parts.h"

namespace espalier {
namespace {

using Json = nlohmann::json;

constexpr const char* kPromptForms = "a string, token ids, or a list of those";

// {"prompt_string": "..."} of llama-server.
std::optional<ApiError> ReadPromptObject(const Json& value, const std::string& param, Prompt* prompt) {
  FieldReader fields(value, param + ".");
  std::string text;
  if (!fields.String("prompt_string", &text) && !fields.error()) {
    return WrongValue(param, "an object with \"prompt_string\"", value);
  }
  const Json* media = fields.Find("multimodal_data");
  if (media != nullptr && !media->empty()) {
    return InvalidRequest(param + ".multimodal_data", "images and sound are not supported");
  }
  prompt->emplace_back(std::move(text));
  return fields.error();
}

// An array of token ids and strings, as one sequence.
std::optional<ApiError> ReadSequence(const Json& array, const std::string& param, int32_t n_vocab, Prompt* prompt) {
  if (array.empty()) {
    return WrongValue(param, kPromptForms, array);
  }
  for (size_t i = 0; i < array.size(); ++i) {
    const Json& element = array[i];
    if (element.is_string()) {
      prompt->emplace_back(element.get<std::string>());
      continue;
    }
    const std::optional<int64_t> token = IntegerIn(element, 0, int64_t{n_vocab} - 1);
    if (!token) {
      return WrongValue(fmt::format("{}[{}]", param, i), fmt::format("a token id in 0 to {}", n_vocab - 1), element);
    }
    if (prompt->empty() || !std::holds_alternative<std::vector<int32_t>>(prompt->back())) {
      prompt->emplace_back(std::vector<int32_t>());
    }
    std::get<std::vector<int32_t>>(prompt->back()).push_back(static_cast<int32_t>(*token));
  }
  return std::nullopt;
}

std::optional<ApiError> ReadPrompt(const Json& value, const std::string& param, int32_t n_vocab, Prompt* prompt) {
  if (value.is_string()) {
    prompt->emplace_back(value.get<std::string>());
    return std::nullopt;
  }
  if (value.is_object()) {
    return ReadPromptObject(value, param, prompt);
  }
  if (value.is_array()) {
    return ReadSequence(value, param, n_vocab, prompt);
  }
  return WrongValue(param, kPromptForms, value);
}

// A list of prompts, unlike one prompt of token ids, has no element that is a number.
bool IsListOfPrompts(const Json& value) {
  return value.is_array() && !value.empty() && std::none_of(value.begin(), value.end(), [](const Json& element) {
           return !element.is_string() && !element.is_array() && !element.is_object();
         });
}

// A message's content: a string, or parts of text.
std::optional<ApiError> ReadContent(const Json& content, const std::string& param, std::string* text) {
  if (content.is_string()) {
    *text = content.get<std::string>();
    return std::nullopt;
  }
  if (!content.is_array()) {
    return WrongValue(param, "a string or a list of parts", content);
  }
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string part_param = fmt::format("{}[{}]", param, i);
    if (!content[i].is_object()) {
      return WrongValue(part_param, "an object with \"type\"", content[i]);
    }
    FieldReader part(content[i], part_param + ".");
    std::string type;
    if (!part.String("type", &type)) {
      return part.error() ? *part.error() : WrongValue(part_param, "an object with \"type\"", content[i]);
    }
    if (type != "text") {
      return WrongValue(part.Path("type"), "\"text\" (nothing else is supported)", content[i]["type"]);
    }
    std::string piece;
    if (!part.String("text", &piece)) {
      return part.error() ? *part.error() : WrongValue(part_param, "an object with \"text\"", content[i]);
    }
    *text += (i == 0 ? "" : "\n") + piece;
  }
  return std::nullopt;
}

std::optional<ApiError> ReadMessage(const Json& value, const std::string& param, ChatMessage* message) {
  constexpr std::array<std::string_view, 5> kRoles = {"system", "developer", "user", "assistant", "tool"};
  if (!value.is_object()) {
    return WrongValue(param, "an object with \"role\" and \"content\"", value);
  }
  FieldReader fields(value, param + ".");
  if (!fields.String("role", &message->role)) {
    return fields.error() ? *fields.error() : WrongValue(fields.Path("role"), "a string", Json());
  }
  if (std::find(kRoles.begin(), kRoles.end(), message->role) == kRoles.end()) {
    return WrongValue(fields.Path("role"), "system, developer, user, assistant or tool", value["role"]);
  }
  for (const char* name : {"tool_calls", "function_call"}) {
    const Json* calls = fields.Find(name);
    if (calls != nullptr && !calls->empty()) {
      return InvalidRequest(fields.Path(name),
                            fmt::format("field '{}': calling tools is not supported", fields.Path(name)));
    }
  }
  const Json* content = fields.Find("content");
  if (content == nullptr) {
    return message->role == "assistant"
               ? std::nullopt
               : std::optional(WrongValue(fields.Path("content"), "a string or a list of parts", Json()));
  }
  if (auto error = ReadContent(*content, fields.Path("content"), &message->content)) {
    return error;
  }
  // Templates are libllama's, and its texts end there: what follows would be lost without a word.
  if (message->content.find('\0') != std::string::npos) {
    return InvalidRequest(fields.Path("content"),
                          fmt::format("field '{}': expected text without U+0000, found one", fields.Path("content")));
  }
  return std::nullopt;
}

void RefuseTools(FieldReader* fields) {
  for (const char* name : {"tools", "functions"}) {
    const Json* tools = fields->Find(name);
    if (tools != nullptr && !tools->empty()) {
      fields->Fail(InvalidRequest(name, fmt::format("field '{}': calling tools is not supported", name)));
    }
  }
  for (const char* name : {"tool_choice", "function_call"}) {
    const Json* choice = fields->Find(name);
    if (choice != nullptr && *choice != Json("none") && *choice != Json("auto")) {
      fields->Fail(WrongValue(name, "none or auto (calling tools is not supported)", *choice));
    }
  }
}

void ReadContinuation(FieldReader* fields, CompletionRequest* request) {
  const std::vector<ChatMessage>& messages = request->messages;
  const bool assistant_last = messages.back().role == "assistant";
  if (assistant_last && messages.size() > 1 && messages[messages.size() - 2].role == "assistant") {
    return fields->Fail(InvalidRequest("messages",
                                       "field 'messages': expected one assistant message at the end (the "
                                       "answer goes on with it), found two"));
  }
  const bool asked = fields->Bool("add_generation_prompt", &request->add_generation_prompt);
  request->continue_final_message = assistant_last;
  if (!fields->Bool("continue_final_message", &request->continue_final_message) || !request->continue_final_message) {
    return;
  }
  if (asked && request->add_generation_prompt) {
    return fields->Fail(InvalidRequest("continue_final_message",
                                       "fields 'continue_final_message' and "
                                       "'add_generation_prompt': expected at most one true"));
  }
  request->add_generation_prompt = true;  // of what stands before the final message
  if (!assistant_last) {
    fields->Fail(InvalidRequest("continue_final_message",
                                "field 'continue_final_message': expected an assistant message at the end"));
  }
}

}  // namespace

void ReadPrompts(const RequestDefaults& defaults, FieldReader* fields, CompletionRequest* request) {
  const Json* value = fields->Find("prompt");
  if (value == nullptr) {
    return fields->Fail(InvalidRequest("prompt", fmt::format("field 'prompt': expected {}, found none", kPromptForms)));
  }
  request->several_prompts = IsListOfPrompts(*value);
  if (!request->several_prompts) {
    request->prompts.resize(1);
    if (auto error = ReadPrompt(*value, "prompt", defaults.n_vocab, &request->prompts[0])) {
      fields->Fail(*std::move(error));
    }
    return;
  }
  if (value->size() > static_cast<size_t>(defaults.max_choices)) {
    return fields->Fail(WrongValue("prompt", fmt::format("at most {} prompts", defaults.max_choices), *value));
  }
  request->prompts.resize(value->size());
  for (size_t i = 0; i < value->size(); ++i) {
    if (auto error = ReadPrompt((*value)[i], fmt::format("prompt[{}]", i), defaults.n_vocab, &request->prompts[i])) {
      return fields->Fail(*std::move(error));
    }
  }
}

void ReadMessages(FieldReader* fields, CompletionRequest* request) {
  const Json* list = fields->Find("messages");
  if (list == nullptr || !list->is_array() || list->empty()) {
    return fields->Fail(WrongValue("messages", "a list of messages", list == nullptr ? Json() : *list));
  }
  request->messages.resize(list->size());
  for (size_t i = 0; i < list->size(); ++i) {
    if (auto error = ReadMessage((*list)[i], fmt::format("messages[{}]", i), &request->messages[i])) {
      return fields->Fail(*std::move(error));
    }
  }
  RefuseTools(fields);
  ReadContinuation(fields, request);
}

}  // namespace espalier
