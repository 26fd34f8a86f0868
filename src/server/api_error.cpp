#include "server/api_error.h"

#include "base/check.h"

namespace espalier {
namespace {

ApiError Error(int status, const char* type, std::string message, const char* code = "") {
  return {.status = status, .type = type, .code = code, .param = "", .message = std::move(message)};
}

}  // namespace

ApiError InvalidRequest(std::string param, std::string message) {
  ApiError error = Error(400, "invalid_request_error", std::move(message));
  error.param = std::move(param);
  return error;
}

ApiError AuthenticationError(std::string message) {
  return Error(401, "authentication_error", std::move(message), "invalid_api_key");
}
ApiError NotFoundError(std::string message) { return Error(404, "not_found_error", std::move(message)); }
ApiError MethodNotAllowed(std::string message) { return Error(405, "invalid_request_error", std::move(message)); }
ApiError ContentTooLarge(std::string message) { return Error(413, "invalid_request_error", std::move(message)); }
ApiError RateLimitError(std::string message) { return Error(429, "rate_limit_error", std::move(message)); }
ApiError ServerError(std::string message) { return Error(500, "server_error", std::move(message)); }
ApiError NotSupportedError(std::string message) { return Error(501, "not_supported_error", std::move(message)); }
ApiError UnavailableError(std::string message) { return Error(503, "unavailable_error", std::move(message)); }

ApiError ErrorFromStatus(const Status& status) {
  ESPALIER_CHECK(!status.ok());
  switch (status.code()) {
    case ErrorCode::kInvalidArgument:
      return InvalidRequest("", status.message());
    case ErrorCode::kOutOfBudget:
      return Error(400, "invalid_request_error", status.message(), "out_of_budget");
    case ErrorCode::kBusy:
      return RateLimitError(status.message());
    case ErrorCode::kUnsupported:
      return NotSupportedError(status.message());
    case ErrorCode::kAborted:
      return UnavailableError(status.message());
    case ErrorCode::kCorrupt:
    case ErrorCode::kNotFound:  // a file or device of ours, not a path of the API
    case ErrorCode::kIo:
      break;
  }
  return ServerError(status.message());
}

nlohmann::ordered_json ToJson(const ApiError& error) {
  using Json = nlohmann::ordered_json;
  Json members = {{"code", error.code.empty() ? Json(error.status) : Json(error.code)},
                  {"message", error.message},
                  {"type", error.type},
                  {"param", error.param.empty() ? Json() : Json(error.param)}};
  for (const auto& [name, value] : error.numbers) {
    members[name] = value;
  }
  return {{"error", std::move(members)}};
}

std::string ErrorBody(const ApiError& error) {
  return ToJson(error).dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace espalier
