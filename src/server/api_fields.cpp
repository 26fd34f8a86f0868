#include "server/api_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "json/json_value.h"
#include "model/quote.h"

namespace espalier {
namespace {

using Json = nlohmann::json;

constexpr size_t kShownBytes = 64;

// How deeply arrays and objects are nested, at most; strings are skipped. Right for every valid JSON text, and for any
// other never less than what the parser builds before it finds the error.
int Depth(std::string_view body) {
  int depth = 0;
  int deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < body.size() && deepest <= kMaxBodyDepth; ++i) {
    const char c = body[i];
    if (in_string) {
      i += c == '\\';
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return deepest;
}

// Where and why a text is not JSON: nlohmann's parser tells only a handler of its own, or by exceptions.
class ErrorFinder : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_array(size_t) override { return Enter(); }
  bool start_object(size_t) override { return Enter(); }
  bool end_array() override { return Leave(); }
  bool end_object() override { return Leave(); }
  bool key(string_t& name) override {
    if (depth_ == 1) {
      field_ = name;
    }
    return true;
  }
  bool parse_error(size_t position, const std::string& last_token, const Json::exception& error) override {
    constexpr int kNumberOverflow = 406;
    if (error.id == kNumberOverflow) {
      error_ = InvalidRequest(field_, fmt::format("field {}: expected a number of 64 bits, found {}", Quote(field_),
                                                  Printable(last_token, kShownBytes)));
    } else {
      error_ =
          InvalidRequest("", fmt::format("request body: expected JSON in UTF-8, found an error at byte {}, near {}",
                                         position, Quote(last_token)));
    }
    return false;
  }
  ApiError error() const { return error_; }

 private:
  bool Enter() { return ++depth_ > 0; }
  bool Leave() { return --depth_ >= 0; }

  int depth_ = 0;
  std::string field_;
  ApiError error_ = InvalidRequest("", "request body: expected JSON in UTF-8");
};

}  // namespace

ApiResult<Json> ParseBody(std::string_view body) {
  if (Depth(body) > kMaxBodyDepth) {
    return InvalidRequest(
        "", fmt::format("request body: expected at most {} levels of arrays and objects, found more", kMaxBodyDepth));
  }
  Json parsed = Json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (parsed.is_discarded()) {
    ErrorFinder finder;
    Json::sax_parse(body, &finder);
    return finder.error();
  }
  if (!parsed.is_object()) {
    return InvalidRequest(
        "", fmt::format("request body: expected a JSON object, found {}", ShowValue(parsed, kShownBytes)));
  }
  return parsed;
}

ApiError WrongValue(const std::string& param, std::string_view expected, const Json& value) {
  return InvalidRequest(
      param, fmt::format("field {}: expected {}, found {}", Quote(param), expected, ShowValue(value, kShownBytes)));
}

std::optional<int64_t> IntegerIn(const Json& value, int64_t lowest, int64_t highest) {
  if (value.is_number_float()) {
    constexpr double kExact = 9007199254740992;  // 2^53
    const auto number = value.get<double>();
    const bool integral = number >= -kExact && number <= kExact && number == std::trunc(number);
    return integral ? IntegerIn(Json(static_cast<int64_t>(number)), lowest, highest) : std::nullopt;
  }
  if (!value.is_number_integer() ||
      (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))) {
    return std::nullopt;
  }
  const auto integer = value.get<int64_t>();
  return integer < lowest || integer > highest ? std::nullopt : std::optional(integer);
}

void FieldReader::Fail(ApiError error) {
  if (!error_) {
    error_ = std::move(error);
  }
}

const Json* FieldReader::Find(const char* name) const {
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

bool FieldReader::Bool(const char* name, bool* out) {
  const Json* value = error_ ? nullptr : Find(name);
  if (value == nullptr) {
    return false;
  }
  if (!value->is_boolean()) {
    Fail(WrongValue(Path(name), "true or false", *value));
    return false;
  }
  *out = value->get<bool>();
  return true;
}

bool FieldReader::Int(const char* name, int64_t lowest, int64_t highest, int64_t* out) {
  const Json* value = error_ ? nullptr : Find(name);
  if (value == nullptr) {
    return false;
  }
  const std::optional<int64_t> integer = IntegerIn(*value, lowest, highest);
  if (!integer) {
    Fail(WrongValue(Path(name), fmt::format("an integer in {} to {}", lowest, highest), *value));
    return false;
  }
  *out = *integer;
  return true;
}

bool FieldReader::Int(const char* name, int64_t lowest, int64_t highest, int32_t* out) {
  ESPALIER_CHECK(lowest >= INT32_MIN && highest <= INT32_MAX);
  int64_t wide = 0;
  if (!Int(name, lowest, highest, &wide)) {
    return false;
  }
  *out = static_cast<int32_t>(wide);
  return true;
}

bool FieldReader::Number(const char* name, double lowest, double highest, float* out) {
  const Json* value = error_ ? nullptr : Find(name);
  if (value == nullptr) {
    return false;
  }
  const double number = value->is_number() ? value->get<double>() : 0;
  if (!value->is_number() || !(number >= lowest && number <= highest)) {
    Fail(WrongValue(Path(name), fmt::format("a number in {} to {}", lowest, highest), *value));
    return false;
  }
  *out = static_cast<float>(number);
  return true;
}

bool FieldReader::String(const char* name, std::string* out) {
  const Json* value = error_ ? nullptr : Find(name);
  if (value == nullptr) {
    return false;
  }
  if (!value->is_string()) {
    Fail(WrongValue(Path(name), "a string", *value));
    return false;
  }
  *out = value->get<std::string>();
  return true;
}

}  // namespace espalier
