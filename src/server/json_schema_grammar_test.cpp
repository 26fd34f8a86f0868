#include "server/json_schema_grammar.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "server/completion_request.h"
#include "text/gbnf.h"

namespace espalier {
namespace {

using Json = nlohmann::json;

ApiResult<std::string> Convert(const std::string& text) {
  const std::string body = "{\"json_schema\": " + text + "}";
  const Json parsed = Json::parse(body);
  return GrammarOfJsonSchema(parsed["json_schema"], KeyOrderOf(body, parsed, {"json_schema"}), "schema");
}

// The rules of the schema's own, without those of JSON.
std::string Rules(const std::string& schema) {
  const ApiResult<std::string> grammar = Convert(schema);
  if (IsError(grammar)) {
    ADD_FAILURE() << schema << ": " << std::get<ApiError>(grammar).message;
    return "";
  }
  const auto& text = std::get<std::string>(grammar);
  return text.substr(0, text.find("value ::="));
}

std::string Refused(const std::string& schema) {
  const ApiResult<std::string> grammar = Convert(schema);
  EXPECT_TRUE(IsError(grammar)) << schema;
  return IsError(grammar) ? std::get<ApiError>(grammar).param : "";
}

TEST(JsonSchemaGrammar, PlainTypesAreTheRulesOfJson) {
  EXPECT_EQ(Rules("{}"), "root ::= value\n");
  EXPECT_EQ(Rules("true"), "root ::= value\n");
  for (const std::string type : {"string", "number", "integer", "boolean", "null", "object"}) {
    EXPECT_EQ(Rules("{\"type\": \"" + type + "\"}"), "root ::= " + type + "\n");
  }
  EXPECT_EQ(Rules(R"({"type": ["string", "null"]})"), "root ::= (string | null)\n");
  EXPECT_TRUE(JsonObjectGrammar().starts_with("root ::= object\n"));
}

TEST(JsonSchemaGrammar, ValuesAreWrittenAsJson) {
  EXPECT_EQ(Rules(R"({"const": "4\"2"})"), "root ::= r0\nr0 ::= \"\\\"4\\\\\\\"2\\\"\"\n");
  EXPECT_EQ(Rules(R"({"enum": ["a", 1, null]})"), "root ::= r0\nr0 ::= (\"\\\"a\\\"\" | \"1\" | \"null\")\n");
}

TEST(JsonSchemaGrammar, MembersStandInTheOrderOfTheSchema) {
  const std::string rules = Rules(R"({"type": "object", "properties": {"reasoning": {"type": "string"},
    "answer": {"type": "integer"}}, "required": ["answer", "reasoning"], "additionalProperties": false})");
  EXPECT_EQ(rules, R"GBNF(root ::= r6
r0 ::= "\"reasoning\"" ws ":" ws string
r1 ::= "\"answer\"" ws ":" ws integer
r2 ::= r1
r3 ::= ws "," ws r1
r4 ::= r0 r3
r5 ::= ws "," ws r0 r3
r6 ::= "{" ws r4 ws "}"
)GBNF");
}

TEST(JsonSchemaGrammar, MembersThatAreNotRequiredMayBeLeftOut) {
  const std::string rules = Rules(R"({"properties": {"b": {"type": "null"}, "a": {"type": "null"}}})");
  EXPECT_EQ(rules, R"GBNF(root ::= r6
r0 ::= "\"b\"" ws ":" ws null
r1 ::= "\"a\"" ws ":" ws null
r2 ::= r1
r3 ::= (ws "," ws r1)?
r4 ::= r0 r3 | r2
r5 ::= (ws "," ws r0)? r3
r6 ::= "{" ws (r4 ws)? "}"
)GBNF");
}

TEST(JsonSchemaGrammar, ArraysAndStringsHaveLengths) {
  EXPECT_EQ(Rules(R"({"items": {"type": "integer"}})"),
            "root ::= r0\nr0 ::= \"[\" ws (integer (ws \",\" ws integer)* ws)? \"]\"\n");
  EXPECT_EQ(Rules(R"({"items": {"type": "integer"}, "minItems": 2, "maxItems": 3})"),
            "root ::= r0\nr0 ::= \"[\" ws integer (ws \",\" ws integer){1,2} ws \"]\"\n");
  EXPECT_EQ(Rules(R"({"type": "array", "maxItems": 1})"), "root ::= r0\nr0 ::= \"[\" ws (value ws)? \"]\"\n");
  EXPECT_EQ(Rules(R"({"items": [{"type": "integer"}, {"type": "null"}]})"),
            "root ::= r0\nr0 ::= \"[\" ws integer ws \",\" ws null ws \"]\"\n");
  EXPECT_EQ(Rules(R"({"type": "string", "minLength": 1, "maxLength": 3})"),
            "root ::= r0\nr0 ::= \"\\\"\" char{1,3} \"\\\"\"\n");
}

TEST(JsonSchemaGrammar, ReferencesAreOneRuleHoweverOftenTheyAreUsed) {
  // Without that, this would be 2^60 copies.
  std::string defs = R"("d0": {"type": "integer"})";
  for (int i = 1; i <= 60; ++i) {
    defs += fmt::format(R"(, "d{0}": {{"items": [{{"$ref": "#/$defs/d{1}"}}, {{"$ref": "#/$defs/d{1}"}}]}})", i, i - 1);
  }
  EXPECT_LT(Rules(R"({"$ref": "#/$defs/d60", "$defs": {)" + defs + "}}").size(), 10000u);
}

TEST(JsonSchemaGrammar, WhatIsNotCoveredIsRefusedByName) {
  EXPECT_EQ(Refused("123"), "schema");
  EXPECT_EQ(Refused("false"), "schema");
  EXPECT_EQ(Refused(R"({"type": 123})"), "schema.type");
  EXPECT_EQ(Refused(R"({"type": "hiccup"})"), "schema.type");
  EXPECT_EQ(Refused(R"({"type": "string", "pattern": "a+"})"), "schema.pattern");
  EXPECT_EQ(Refused(R"({"properties": {"a": {"minimum": 3}}})"), "schema.properties.a.minimum");
  EXPECT_EQ(Refused(R"({"properties": {"a": {}}, "required": ["b"]})"), "schema.required");
  EXPECT_EQ(Refused(R"({"properties": []})"), "schema.properties");
  EXPECT_EQ(Refused(R"({"enum": []})"), "schema.enum");
  EXPECT_EQ(Refused(R"({"anyOf": []})"), "schema.anyOf");
  EXPECT_EQ(Refused(R"({"allOf": [{}, {}]})"), "schema.allOf");
  EXPECT_EQ(Refused(R"({"minItems": 3, "maxItems": 2})"), "schema");
  EXPECT_EQ(Refused(R"({"maxLength": 1000000})"), "schema.maxLength");
  EXPECT_EQ(Refused(R"({"maxLength": -1})"), "schema.maxLength");
}

TEST(JsonSchemaGrammar, ReferencesLeadSomewhereAndNotBack) {
  EXPECT_EQ(Refused(R"({"$ref": "#"})"), "schema.$ref");
  EXPECT_EQ(Refused(R"({"$ref": "#/$defs/a"})"), "schema.$ref");
  EXPECT_EQ(Refused(R"({"$ref": "http://example.org"})"), "schema.$ref");
  EXPECT_EQ(Refused(R"({"$ref": 3})"), "schema.$ref");
  Refused(R"({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}})");
  EXPECT_EQ(Rules(R"({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "null"}}})"), "root ::= r0\nr0 ::= null\n");
}

TEST(JsonSchemaGrammar, SaysThatASchemaWithinItselfIsNotSupported) {
  for (const char* schema : {R"({"$ref": "#"})", R"({"properties": {"child": {"$ref": "#"}}})"}) {
    const auto grammar = Convert(schema);
    ASSERT_TRUE(IsError(grammar));
    EXPECT_NE(std::get<ApiError>(grammar).message.find("a schema within itself is not supported"), std::string::npos);
  }
}

TEST(JsonSchemaGrammar, FormatsOfTimeAreFollowedAndOthersRefused) {
  EXPECT_EQ(Rules(R"({"type": "string", "format": "date"})"), R"GBNF(root ::= r0
r0 ::= "\"" [0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [12] [0-9] | "3" [01]) "\""
)GBNF");
  for (const char* format : {"date-time", "time", "uuid"}) {
    EXPECT_NE(Rules(fmt::format(R"({{"format": "{}"}})", format)), "");
  }
  EXPECT_EQ(Refused(R"({"type": "string", "format": "email"})"), "schema.format");
  EXPECT_EQ(Refused(R"({"type": "string", "format": 3})"), "schema.format");
  EXPECT_EQ(Refused(R"({"type": "string", "format": "date", "maxLength": 3})"), "schema");
  EXPECT_EQ(Rules(R"({"type": "integer", "format": "int64"})"), "root ::= integer\n") << "means strings only";
}

// Whatever a schema becomes libllama takes.
TEST(JsonSchemaGrammar, LargeSchemasStayWithinTheBoundsOfGrammars) {
  std::string properties;
  for (int i = 0; i < 300; ++i) {
    properties += fmt::format(R"({}"p{}": {{"type": ["string", "number"], "minLength": 1}})", i == 0 ? "" : ", ", i);
  }
  std::string nested = R"({"type": "null"})";
  for (int i = 0; i < 120; ++i) {
    nested = R"({"anyOf": [{"type": "null"}, )" + nested + "]}";
  }
  for (const std::string& schema :
       {std::string("{}"), "{\"properties\": {" + properties + "}}", nested, std::string(R"({"maxLength": 1000})"),
        std::string(R"({"items": {"type": "string", "format": "date-time"}, "minItems": 100, "maxItems": 900})")}) {
    const auto grammar = Convert(schema);
    ASSERT_FALSE(IsError(grammar)) << std::get<ApiError>(grammar).message;
    const Status status = CheckGbnf(std::get<std::string>(grammar), [](std::string_view) { return false; });
    EXPECT_TRUE(status.ok()) << status.message();
  }
  EXPECT_TRUE(CheckGbnf(JsonObjectGrammar(), [](std::string_view) { return false; }).ok());
}

TEST(JsonSchemaGrammar, LongChainsOfReferencesEndInAnErrorNotInTheStack) {
  std::string defs = R"("d0": {})";
  for (int i = 1; i <= 100000; ++i) {
    defs += fmt::format(R"(, "d{}": {{"$ref": "#/$defs/d{}"}})", i, i - 1);
  }
  Refused(R"({"$ref": "#/$defs/d100000", "$defs": {)" + defs + "}}");
}

TEST(JsonSchemaGrammar, GrammarsBeyondTheLimitAreRefused) {
  std::string types = R"("null")";
  std::string values = "0";
  for (int i = 1; i < 100000; ++i) {
    types += R"(, "null")";
    values += fmt::format(", {}", i);
  }
  EXPECT_EQ(Refused("{\"type\": [" + types + "]}"), "schema");
  EXPECT_EQ(Refused("{\"enum\": [" + values + "]}"), "schema");
}

TEST(JsonSchemaGrammar, RequestsNameSchemasInThreeWays) {
  const auto grammar = [](const std::string& field) {
    const auto parsed = ParseCompletionRequest(ApiKind::kNative, "{\"prompt\": \"a\", " + field + "}", {});
    return IsError(parsed) ? "error: " + std::get<ApiError>(parsed).param
                           : std::get<CompletionRequest>(parsed).sampling.grammar.substr(0, 14);
  };
  EXPECT_EQ(grammar(R"("json_schema": {"type": "null"})"), "root ::= null\n");
  EXPECT_EQ(grammar(R"("response_format": {"type": "json_object", "schema": {"type": "null"}})"), "root ::= null\n");
  EXPECT_EQ(grammar(R"("response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "null"}}})"),
            "root ::= null\n");
  EXPECT_EQ(grammar(R"("response_format": {"type": "json_object"})"), "root ::= objec");
  EXPECT_EQ(grammar(R"("response_format": {"type": "text"})"), "");
  EXPECT_EQ(grammar(R"("response_format": {"type": "sound"})"), "error: response_format.type");
  EXPECT_EQ(grammar(R"("response_format": {})"), "error: response_format.type");
  EXPECT_EQ(grammar(R"("response_format": 3)"), "error: response_format");
  EXPECT_EQ(grammar(R"("response_format": {"type": "json_schema"})"), "error: response_format.json_schema.schema");
  EXPECT_EQ(grammar(R"("response_format": {"type": "json_object", "schema": 123})"), "error: response_format.schema");
  EXPECT_EQ(grammar(R"("json_schema": {}, "grammar": "root ::= value")"), "error: grammar");
  EXPECT_EQ(grammar(R"("grammar": "a\u0000b")"), "error: grammar");
}

TEST(JsonKeyOrder, FollowsTheTextAndSurvivesRepeatedMembers) {
  const std::string body = R"({"other": {"z": 1, "a": 2}, "json_schema": {"x": [1, {"q": 1}], "x": {"z": [], "y": 1,
    "z": {"c": 1, "b": [{"n": 1, "m": 2}]}}, "a": [0, {"k": 1, "j": 2}]}})";
  const Json parsed = Json::parse(body);
  const JsonKeyOrder order = KeyOrderOf(body, parsed, {"json_schema"});
  const auto names = [&](const char* pointer) { return NamesInOrder(parsed.at(Json::json_pointer(pointer)), order); };
  using Names = std::vector<std::string>;
  EXPECT_EQ(names("/other"), (Names{"a", "z"})) << "not asked for";
  EXPECT_EQ(names("/json_schema"), (Names{"x", "a"}));
  EXPECT_EQ(names("/json_schema/x"), (Names{"z", "y"}));
  EXPECT_EQ(names("/json_schema/x/z"), (Names{"c", "b"}));
  EXPECT_EQ(names("/json_schema/x/z/b/0"), (Names{"n", "m"}));
  EXPECT_EQ(names("/json_schema/a/1"), (Names{"k", "j"}));
}

}  // namespace
}  // namespace espalier
