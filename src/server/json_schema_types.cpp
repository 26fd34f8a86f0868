#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "model/quote.h"
#include "server/api_fields.h"
#include "server/json_schema_converter.h"

namespace espalier {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxRepetitions = 1000;  // libllama writes repetitions out
constexpr std::string_view kSeparator = " ws \",\" ws ";

// "{2,5}" for repetitions of what follows the first element or letter.
std::string Repetitions(int64_t least, std::optional<int64_t> most) {
  return most ? fmt::format("{{{},{}}}", least, *most) : fmt::format("{{{},}}", least);
}

}  // namespace

std::string JsonSchemaConverter::VisitTypes(const Json& schema, const std::string& path) {
  const auto type = schema.find("type");
  if (type == schema.end()) {
    const auto has = [&](const char* name) { return schema.contains(name); };
    const bool object = has("properties") || has("required") || has("additionalProperties");
    const bool array = has("items") || has("prefixItems") || has("minItems") || has("maxItems");
    const bool string = has("minLength") || has("maxLength") || has("format");
    return object   ? VisitType(schema, "object", path)
           : array  ? VisitType(schema, "array", path)
           : string ? VisitType(schema, "string", path)
                    : "value";
  }
  if (type->is_string()) {
    return VisitType(schema, type->get<std::string>(), path);
  }
  if (!type->is_array() || type->empty()) {
    return Fail(WrongValue(path + ".type", "a name or a list of names", *type));
  }
  std::vector<std::string> choices;
  for (const Json& name : *type) {
    choices.push_back(name.is_string() ? VisitType(schema, name.get<std::string>(), path)
                                       : Fail(WrongValue(path + ".type", "names of types", name)));
  }
  return GbnfAlternatives(choices);
}

std::string JsonSchemaConverter::VisitType(const Json& schema, const std::string& type, const std::string& path) {
  if (type == "string") {
    return String(schema, path);
  }
  if (type == "object") {
    return Object(schema, path);
  }
  if (type == "array") {
    return Array(schema, path);
  }
  for (const char* plain : {"number", "integer", "boolean", "null"}) {
    if (type == plain) {
      return type;
    }
  }
  return Fail(WrongValue(path + ".type", "string, number, integer, boolean, null, array or object", Json(type)));
}

std::optional<int64_t> JsonSchemaConverter::Count(const Json& schema, const char* name, const std::string& path) {
  const auto found = schema.find(name);
  if (found == schema.end()) {
    return std::nullopt;
  }
  const auto count = IntegerIn(*found, 0, kMaxRepetitions);
  if (!count) {
    Fail(WrongValue(fmt::format("{}.{}", path, name), fmt::format("an integer in 0 to {}", kMaxRepetitions), *found));
  }
  return count;
}

// What stands between the quotes.
std::string JsonSchemaConverter::Format(const Json& format, const std::string& path) {
  const std::string date = R"([0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [12] [0-9] | "3" [01]))";
  const std::string minutes = R"(([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9])";
  const std::string time = minutes + R"( ":" [0-5] [0-9] ("." [0-9]{3})? ("Z" | [-+] )" + minutes + ")";
  const std::string uuid = R"([0-9a-fA-F]{8} ("-" [0-9a-fA-F]{4}){3} "-" [0-9a-fA-F]{12})";
  for (const auto& [name, rule] : {std::pair{"date", date}, std::pair{"time", time},
                                   std::pair{"date-time", date + " \"T\" " + time}, std::pair{"uuid", uuid}}) {
    if (format == Json(name)) {
      return rule;
    }
  }
  return Fail(WrongValue(path, "date, time, date-time or uuid", format));
}

std::string JsonSchemaConverter::String(const Json& schema, const std::string& path) {
  if (schema.contains("format")) {
    if (schema.contains("minLength") || schema.contains("maxLength")) {
      return Unsupported(path, "\"format\" beside minLength or maxLength is not supported");
    }
    return Rule(fmt::format(R"("\"" {} "\"")", Format(schema["format"], path + ".format")));
  }
  const int64_t least = Count(schema, "minLength", path).value_or(0);
  const auto most = Count(schema, "maxLength", path);
  if (least == 0 && !most) {
    return "string";
  }
  if (most && *most < least) {
    return Unsupported(path, fmt::format("maxLength {} is less than minLength {}", *most, least));
  }
  return most == 0 ? R"("\"\"")" : Rule(fmt::format(R"("\"" char{} "\"")", Repetitions(least, most)));
}

std::string JsonSchemaConverter::Tuple(const Json& items, const std::string& path) {
  std::string body = "\"[\" ws ";
  for (size_t i = 0; i < items.size(); ++i) {
    body += (i == 0 ? std::string() : std::string(kSeparator)) + Visit(items[i], fmt::format("{}[{}]", path, i));
  }
  return Rule(body + (items.empty() ? "\"]\"" : " ws \"]\""));
}

std::string JsonSchemaConverter::Array(const Json& schema, const std::string& path) {
  for (const char* name : {"prefixItems", "items"}) {
    const auto found = schema.find(name);
    if (found != schema.end() && found->is_array()) {
      return Tuple(*found, fmt::format("{}.{}", path, name));
    }
  }
  const int64_t least = Count(schema, "minItems", path).value_or(0);
  const auto most = Count(schema, "maxItems", path);
  if (most && *most < least) {
    return Unsupported(path, fmt::format("maxItems {} is less than minItems {}", *most, least));
  }
  if (most == 0) {
    return Rule(R"("[" ws "]")");
  }
  const std::string item = schema.contains("items") ? Visit(schema["items"], path + ".items") : "value";
  std::string elements = item;
  if (most != 1) {
    const int64_t further = std::max<int64_t>(least - 1, 0);
    elements += fmt::format(" ({}{}){}", kSeparator.substr(1), item,
                            most          ? Repetitions(further, *most - 1)
                            : further > 0 ? Repetitions(further, most)
                                          : "*");
  }
  return Rule(least == 0 ? fmt::format(R"("[" ws ({} ws)? "]")", elements)
                         : fmt::format(R"("[" ws {} ws "]")", elements));
}

std::string JsonSchemaConverter::Object(const Json& schema, const std::string& path) {
  const Json none = Json::object();
  const Json& properties = schema.contains("properties") ? schema["properties"] : none;
  if (!properties.is_object()) {
    return Fail(WrongValue(path + ".properties", "an object", properties));
  }
  std::set<std::string> required;
  const Json& needed = schema.contains("required") ? schema["required"] : Json::array();
  if (!needed.is_array()) {
    return Fail(WrongValue(path + ".required", "a list of names", needed));
  }
  for (const Json& name : needed) {
    if (!name.is_string() || !properties.contains(name.get<std::string>())) {
      return Fail(WrongValue(path + ".required", "names that are among the properties", name));
    }
    required.insert(name.get<std::string>());
  }
  if (!properties.empty()) {
    return Properties(properties, required, path);
  }
  const auto additional = schema.find("additionalProperties");
  if (additional == schema.end() || *additional == Json(true)) {
    return "object";
  }
  if (*additional == Json(false)) {
    return Rule(R"("{" ws "}")");
  }
  const std::string value = Visit(*additional, path + ".additionalProperties");
  const std::string member = Rule("string ws \":\" ws " + value);
  return Rule(fmt::format(R"("{{" ws ({0} (ws "," ws {0})* ws)? "}}")", member));
}

// Members in their order, each that is not required perhaps left out. Two rules per member keep the grammar linear in
// their number: rest[i], what may follow when something stands already, and first, what may stand at the beginning.
std::string JsonSchemaConverter::Properties(const Json& properties, const std::set<std::string>& required,
                                            const std::string& path) {
  const std::vector<std::string> names = NamesInOrder(properties, order_);
  std::vector<std::string> members;
  for (const std::string& name : names) {
    const std::string value = Visit(properties[name], fmt::format("{}.properties.{}", path, Printable(name, 48)));
    members.push_back(Rule(fmt::format("{} ws \":\" ws {}", GbnfLiteral(Json(name).dump()), value)));
  }
  std::string rest;   // of the members after the present one; empty: nothing
  std::string first;  // likewise, without a comma before; empty: nothing
  for (size_t i = members.size(); i-- > 0;) {
    const bool needed = required.contains(names[i]);
    const std::string begin = rest.empty() ? members[i] : members[i] + " " + rest;
    first = Rule(needed || first.empty() ? begin : fmt::format("{} | {}", begin, first));
    const std::string follow = fmt::format("ws \",\" ws {}", members[i]);
    rest = Rule((needed ? follow : fmt::format("({})?", follow)) + (rest.empty() ? "" : " " + rest));
  }
  return Rule(!required.empty() ? fmt::format(R"("{{" ws {} ws "}}")", first)
                                : fmt::format(R"("{{" ws ({} ws)? "}}")", first));
}

}  // namespace espalier
