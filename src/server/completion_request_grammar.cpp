#include <fmt/format.h>

#include "server/completion_request_parts.h"
#include "server/json_schema_grammar.h"

namespace espalier {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxGrammarBytes = size_t{1} << 18;

// The schema in {"type": "json_schema", "json_schema": {"schema": {...}}}, in {"type": "json_object", "schema": {...}}.
// `any`: an object of any kind is asked for.
const Json* SchemaOfFormat(const Json& format, FieldReader* fields, std::string* param, bool* any) {
  FieldReader inner(format, "response_format.");
  std::string type;
  if (!inner.String("type", &type)) {
    fields->Fail(inner.error() ? *inner.error() : WrongValue("response_format.type", "a string", Json()));
    return nullptr;
  }
  if (type == "text") {
    return nullptr;
  }
  if (type == "json_object") {
    *param = "response_format.schema";
    const Json* schema = inner.Find("schema");
    *any = schema == nullptr;
    return schema;
  }
  if (type != "json_schema") {
    fields->Fail(WrongValue("response_format.type", "text, json_object or json_schema", format["type"]));
    return nullptr;
  }
  *param = "response_format.json_schema.schema";
  const Json* holder = inner.Find("json_schema");
  const Json* schema = holder != nullptr && holder->is_object() ? FieldReader(*holder).Find("schema") : nullptr;
  if (schema == nullptr) {
    fields->Fail(WrongValue(*param, "an object", Json()));
  }
  return schema;
}

}  // namespace

void ReadGrammar(std::string_view body, const Json& object, FieldReader* fields, CompletionRequest* request) {
  std::string grammar;
  fields->String("grammar", &grammar);
  if (grammar.size() > kMaxGrammarBytes || grammar.find('\0') != std::string::npos) {
    return fields->Fail(WrongValue("grammar", fmt::format("GBNF of at most {} bytes", kMaxGrammarBytes), grammar));
  }
  std::string param = "json_schema";
  const Json* schema = fields->Find("json_schema");
  const Json* format = fields->Find("response_format");
  bool any_object = false;
  if (format != nullptr && !format->is_object()) {
    return fields->Fail(WrongValue("response_format", "an object", *format));
  }
  if (schema == nullptr && format != nullptr) {
    schema = SchemaOfFormat(*format, fields, &param, &any_object);
  }
  if (schema == nullptr && !any_object) {
    if (!grammar.empty()) {
      request->sampling.grammar = std::move(grammar);
      request->grammar_field = "grammar";
    }
    return;
  }
  if (!grammar.empty()) {
    return fields->Fail(
        InvalidRequest("grammar", fmt::format("fields 'grammar' and '{}': expected one of them", param)));
  }
  if (any_object) {
    request->sampling.grammar = JsonObjectGrammar();
    return;
  }
  const JsonKeyOrder order = KeyOrderOf(body, object, {"json_schema", "response_format"});
  ApiResult<std::string> converted = GrammarOfJsonSchema(*schema, order, param);
  if (IsError(converted)) {
    return fields->Fail(std::get<ApiError>(std::move(converted)));
  }
  request->sampling.grammar = std::get<std::string>(std::move(converted));
  request->grammar_field = param;
}

}  // namespace espalier
