// Bodies of requests and their fields: every number within its range, every error with the field's name, what was
// expected and what was found.
#pragma once

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "server/api_error.h"

namespace espalier {

inline constexpr int kMaxBodyDepth = 64;  // arrays and objects within each other

// A JSON object of at most kMaxBodyDepth levels, so that what walks through it may recurse. Of equal members the last
// counts. Otherwise 400, with the field's name in `param` where a number is too large to be one.
ApiResult<nlohmann::json> ParseBody(std::string_view body);

// "expected <expected>, found <value>" about the field `param`.
ApiError WrongValue(const std::string& param, std::string_view expected, const nlohmann::json& value);

// Reads fields one after another. A field that is absent or null leaves the output as it is. After the first error,
// further calls do nothing: error() has it. `object` must outlive the reader. REQUIRES: an object.
class FieldReader {
 public:
  // `path` stands before the names in messages: "stream_options.".
  explicit FieldReader(const nlohmann::json& object, std::string path = "") : object_(object), path_(std::move(path)) {}

  // nullptr if the field is absent or null.
  const nlohmann::json* Find(const char* name) const;
  std::string Path(std::string_view name) const { return path_ + std::string(name); }

  // Whether there was such a field and it was right.
  bool Bool(const char* name, bool* out);
  // 16.0 is one, as in JSON Schema.
  bool Int(const char* name, int64_t lowest, int64_t highest, int64_t* out);
  bool Int(const char* name, int64_t lowest, int64_t highest, int32_t* out);
  bool Number(const char* name, double lowest, double highest, float* out);
  bool String(const char* name, std::string* out);

  void Fail(ApiError error);
  const std::optional<ApiError>& error() const { return error_; }

 private:
  const nlohmann::json& object_;
  std::string path_;
  std::optional<ApiError> error_;
};

// The value as an integer in the range, or nothing (also for 3.5, true and what exceeds 64 bits). 3.0 is one as long as
// doubles tell integers apart.
std::optional<int64_t> IntegerIn(const nlohmann::json& value, int64_t lowest, int64_t highest);

}  // namespace espalier
