// What the API answers when it cannot answer: OpenAI's error object, with llama-server's types.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/status.h"

namespace espalier {

// `type` and the HTTP status belong together; the functions below are the pairs in use.
struct ApiError {
  int status = 500;     // of HTTP
  std::string type;     // "invalid_request_error", "rate_limit_error", ...
  std::string code;     // for programs: "out_of_budget"; empty: the answer shows the HTTP status, as llama-server does
  std::string param;    // the field that is wrong: "stop[2]"; empty: none in particular
  std::string message;  // may quote what the user sent, whatever bytes it is made of
  std::vector<std::pair<std::string, int64_t>> numbers = {};  // further members: {"n_ctx", 4096}
};

// 400, about one field; `param` may be empty.
ApiError InvalidRequest(std::string param, std::string message);
ApiError AuthenticationError(std::string message);  // 401
ApiError NotFoundError(std::string message);        // 404
ApiError MethodNotAllowed(std::string message);     // 405; the Allow header is the caller's
ApiError ContentTooLarge(std::string message);      // 413
ApiError RateLimitError(std::string message);       // 429; Retry-After is the caller's
ApiError ServerError(std::string message);          // 500
ApiError NotSupportedError(std::string message);    // 501
ApiError UnavailableError(std::string message);     // 503: loading, draining

// Whose fault a failure of the library is: 400 where the request can be mended (kInvalidArgument, kOutOfBudget), 429
// where it may succeed later, 501, 503 for kAborted, otherwise 500. REQUIRES: !status.ok()
ApiError ErrorFromStatus(const Status& status);

// {"error": {"code", "message", "type", "param"}}. `param` is null where there is none.
nlohmann::ordered_json ToJson(const ApiError& error);
// The same as the body of an answer: valid UTF-8 whatever the message quotes.
std::string ErrorBody(const ApiError& error);

// A T, or the answer that says why there is none.
template <class T>
using ApiResult = std::variant<T, ApiError>;

template <class T>
bool IsError(const ApiResult<T>& result) {
  return std::holds_alternative<ApiError>(result);
}

}  // namespace espalier
