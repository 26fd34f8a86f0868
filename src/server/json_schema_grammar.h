// JSON schemas as GBNF: what a model then writes is JSON that the schema allows, though perhaps not all of it.
#pragma once

#include <nlohmann/json.hpp>

#include <string>

#include "server/api_error.h"
#include "server/json_key_order.h"

namespace espalier {

// Any JSON object. Whitespace between tokens is bounded: a model that may write any amount of it sometimes writes
// nothing else.
std::string JsonObjectGrammar();

// The grammar of the JSON texts that `schema` allows and that are written as below. 400 naming the keyword for what is
// not covered, for what is no schema, and for what would be larger than 256 KiB.
//   type (also a list), enum, const, anyOf, oneOf (as anyOf), allOf of one schema;
//   properties, required: members in the schema's own order, no others; additionalProperties counts only where there
//     are no properties;
//   items (one schema, or one for each element), prefixItems, minItems, maxItems;
//   minLength, maxLength, or format (date, time, date-time, uuid) of strings; $ref to a part of the same schema
//   ("#/$defs/x"), but not to one that it is within.
// Keywords that only describe (title, description, default, ...) are ignored.
// `order`: of the members of properties; `param`: what the schema is called in messages.
ApiResult<std::string> GrammarOfJsonSchema(const nlohmann::json& schema, const JsonKeyOrder& order,
                                           const std::string& param);

}  // namespace espalier
