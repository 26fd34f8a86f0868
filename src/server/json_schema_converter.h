// The converter behind GrammarOfJsonSchema: walks through a schema once, makes rules as it goes, and remembers the
// first error. Not for use elsewhere.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/api_error.h"
#include "server/json_key_order.h"

namespace espalier {

class JsonSchemaConverter {
 public:
  JsonSchemaConverter(const nlohmann::json& root, const JsonKeyOrder& order, std::string param)
      : root_(root), order_(order), param_(std::move(param)) {}

  ApiResult<std::string> Convert();

 private:
  // An expression that stands for itself within a sequence.
  std::string Visit(const nlohmann::json& schema, const std::string& path);
  std::string VisitKeywords(const nlohmann::json& schema, const std::string& path);
  std::string VisitRef(const nlohmann::json& schema, const std::string& path);
  std::string VisitEach(const nlohmann::json& list, const std::string& path);
  std::string VisitTypes(const nlohmann::json& schema, const std::string& path);
  std::string VisitType(const nlohmann::json& schema, const std::string& type, const std::string& path);
  std::string Enumeration(const nlohmann::json& values, const std::string& path);
  std::string Format(const nlohmann::json& format, const std::string& path);
  std::string String(const nlohmann::json& schema, const std::string& path);
  std::string Array(const nlohmann::json& schema, const std::string& path);
  std::string Tuple(const nlohmann::json& items, const std::string& path);
  std::string Object(const nlohmann::json& schema, const std::string& path);
  std::string Properties(const nlohmann::json& properties, const std::set<std::string>& required,
                         const std::string& path);

  const nlohmann::json* Resolve(const std::string& pointer) const;
  std::optional<int64_t> Count(const nlohmann::json& schema, const char* name, const std::string& path);
  std::string Rule(const std::string& body);
  void CheckSize(size_t bytes);
  std::string Fail(ApiError error);
  std::string Unsupported(const std::string& path, std::string_view why);

  const nlohmann::json& root_;
  const JsonKeyOrder& order_;
  const std::string param_;
  std::string rules_;
  int n_rules_ = 0;
  int depth_ = 0;
  std::map<std::string, std::string> refs_;  // the rule of each $ref; empty while it is being made
  std::optional<ApiError> error_;
};

// In double quotes, as GBNF has literals.
std::string GbnfLiteral(std::string_view text);
// "(a | b)"; of one choice that choice. REQUIRES: not empty.
std::string GbnfAlternatives(const std::vector<std::string>& choices);

}  // namespace espalier
