#include "server/json_schema_grammar.h"

#include <fmt/format.h>

#include <string_view>
#include <vector>

#include "model/quote.h"
#include "server/api_fields.h"
#include "server/json_schema_converter.h"

namespace espalier {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kJsonRules = R"GBNF(value ::= object | array | string | number | boolean | null
object ::= "{" ws (member (ws "," ws member)* ws)? "}"
member ::= string ws ":" ws value
array ::= "[" ws (value (ws "," ws value)* ws)? "]"
string ::= "\"" char* "\""
char ::= [^"\\\x00-\x1f\x7f] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})
integer ::= "-"? ("0" | [1-9] [0-9]{0,15})
number ::= integer ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,3})?
boolean ::= "true" | "false"
null ::= "null"
ws ::= (" " | "\n" [ \t]{0,20})?
)GBNF";

constexpr size_t kMaxGrammarBytes = size_t{1} << 18;
constexpr int kMaxDepth = 128;  // through $ref, a schema can be deeper than its text

// Keywords that allow less and that no grammar here can express: ignoring them would let the model break the schema.
constexpr const char* kUnsupported[] = {"pattern",
                                        "minimum",
                                        "maximum",
                                        "exclusiveMinimum",
                                        "exclusiveMaximum",
                                        "multipleOf",
                                        "not",
                                        "if",
                                        "then",
                                        "else",
                                        "contains",
                                        "patternProperties",
                                        "propertyNames",
                                        "minProperties",
                                        "maxProperties",
                                        "uniqueItems",
                                        "dependentRequired",
                                        "dependentSchemas",
                                        "dependencies",
                                        "unevaluatedProperties",
                                        "unevaluatedItems",
                                        "additionalItems",
                                        "$dynamicRef",
                                        "$recursiveRef"};

}  // namespace

std::string GbnfLiteral(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
    }
    out += c;
  }
  return out + '"';
}

std::string GbnfAlternatives(const std::vector<std::string>& choices) {
  return choices.size() == 1 ? choices[0] : fmt::format("({})", fmt::join(choices, " | "));
}

ApiResult<std::string> JsonSchemaConverter::Convert() {
  const std::string top = Visit(root_, param_);
  CheckSize(top.size() + rules_.size());
  if (error_) {
    return *error_;
  }
  return fmt::format("root ::= {}\n{}{}", top, rules_, kJsonRules);
}

std::string JsonSchemaConverter::Fail(ApiError error) {
  if (!error_) {
    error_ = std::move(error);
  }
  return "null";
}

std::string JsonSchemaConverter::Unsupported(const std::string& path, std::string_view why) {
  return Fail(InvalidRequest(path, fmt::format("JSON schema, {}: {}", Quote(path), why)));
}

std::string JsonSchemaConverter::Rule(const std::string& body) {
  std::string name = fmt::format("r{}", n_rules_++);
  rules_ += fmt::format("{} ::= {}\n", name, body);
  CheckSize(rules_.size());
  return name;
}

void JsonSchemaConverter::CheckSize(size_t bytes) {
  if (bytes > kMaxGrammarBytes) {
    Unsupported(param_, fmt::format("expected a grammar of at most {} bytes, found a larger one", kMaxGrammarBytes));
  }
}

std::string JsonSchemaConverter::Visit(const Json& schema, const std::string& path) {
  if (error_) {
    return "null";
  }
  if (schema.is_boolean() && schema.get<bool>()) {
    return "value";
  }
  if (!schema.is_object()) {
    return Fail(WrongValue(path, "a JSON schema (an object)", schema));
  }
  if (depth_ == kMaxDepth) {
    return Unsupported(path, fmt::format("expected at most {} levels, found more", kMaxDepth));
  }
  ++depth_;
  std::string expression = VisitKeywords(schema, path);
  --depth_;
  return expression;
}

std::string JsonSchemaConverter::VisitKeywords(const Json& schema, const std::string& path) {
  for (const char* keyword : kUnsupported) {
    const auto found = schema.find(keyword);
    if (found != schema.end() && !(found->is_boolean() && !found->get<bool>())) {
      return Unsupported(fmt::format("{}.{}", path, keyword), "this keyword is not supported");
    }
  }
  if (schema.contains("const")) {
    return Enumeration(Json::array({schema["const"]}), path + ".const");
  }
  if (schema.contains("enum")) {
    return Enumeration(schema["enum"], path + ".enum");
  }
  for (const char* keyword : {"$ref", "anyOf", "oneOf", "allOf"}) {
    if (!schema.contains(keyword)) {
      continue;
    }
    for (const char* beside : {"properties", "items", "$ref", "anyOf", "oneOf", "allOf", "required"}) {
      if (std::string_view(beside) != keyword && schema.contains(beside)) {
        return Unsupported(path, fmt::format("\"{}\" beside \"{}\" is not supported", beside, keyword));
      }
    }
    const std::string inner = fmt::format("{}.{}", path, keyword);
    if (std::string_view(keyword) == "$ref") {
      return VisitRef(schema["$ref"], inner);
    }
    if (std::string_view(keyword) == "allOf" && schema[keyword].size() != 1) {
      return Unsupported(inner, fmt::format("expected one schema, found {}", schema[keyword].size()));
    }
    return VisitEach(schema[keyword], inner);
  }
  return VisitTypes(schema, path);
}

std::string JsonSchemaConverter::VisitEach(const Json& list, const std::string& path) {
  if (!list.is_array() || list.empty()) {
    return Fail(WrongValue(path, "a list of schemas", list));
  }
  std::vector<std::string> choices;
  for (size_t i = 0; i < list.size(); ++i) {
    choices.push_back(Visit(list[i], fmt::format("{}[{}]", path, i)));
  }
  return GbnfAlternatives(choices);
}

std::string JsonSchemaConverter::VisitRef(const Json& reference, const std::string& path) {
  if (!reference.is_string()) {
    return Fail(WrongValue(path, "a reference like \"#/$defs/name\"", reference));
  }
  const auto pointer = reference.get<std::string>();
  const auto [known, fresh] = refs_.try_emplace(pointer);
  if (!fresh) {
    return known->second.empty() ? Unsupported(path, "a schema within itself is not supported") : known->second;
  }
  const Json* target = Resolve(pointer);
  if (target == &root_) {
    return Unsupported(path, "a schema within itself is not supported");
  }
  if (target == nullptr) {
    return Fail(WrongValue(path, "a reference to a part of the same schema", reference));
  }
  known->second = Rule(Visit(*target, path));
  return known->second;
}

// "#/$defs/a~1b" by RFC 6901, without percent-encoding.
const Json* JsonSchemaConverter::Resolve(const std::string& pointer) const {
  if (pointer.empty() || pointer[0] != '#') {
    return nullptr;
  }
  const Json* place = &root_;
  for (size_t at = 1; at < pointer.size();) {
    if (pointer[at] != '/' || !place->is_object()) {
      return nullptr;
    }
    std::string name;
    for (++at; at < pointer.size() && pointer[at] != '/'; ++at) {
      const bool escaped = pointer[at] == '~' && at + 1 < pointer.size();
      at += escaped;
      name += escaped ? (pointer[at] == '1' ? '/' : '~') : pointer[at];
    }
    const auto found = place->find(name);
    if (found == place->end()) {
      return nullptr;
    }
    place = &*found;
  }
  return place;
}

std::string JsonSchemaConverter::Enumeration(const Json& values, const std::string& path) {
  if (!values.is_array() || values.empty()) {
    return Fail(WrongValue(path, "a list of values", values));
  }
  std::vector<std::string> literals;
  for (const Json& value : values) {
    literals.push_back(GbnfLiteral(value.dump()));
  }
  return Rule(GbnfAlternatives(literals));
}

std::string JsonObjectGrammar() { return fmt::format("root ::= object\n{}", kJsonRules); }

ApiResult<std::string> GrammarOfJsonSchema(const Json& schema, const JsonKeyOrder& order, const std::string& param) {
  return JsonSchemaConverter(schema, order, param).Convert();
}

}  // namespace espalier
