// Requests of all kinds for tests, from the fields that matter.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <variant>

#include "server/completion_request.h"

namespace espalier {

inline constexpr ApiKind kAllKinds[] = {ApiKind::kCompletion, ApiKind::kChat, ApiKind::kNative};

// `fields` beside the prompt that the kind needs.
inline std::string BodyOf(ApiKind kind, const std::string& fields) {
  const std::string prompt =
      kind == ApiKind::kChat ? R"("messages": [{"role": "user", "content": "Hi"}])" : R"("prompt": "Hi")";
  return "{" + prompt + (fields.empty() ? "" : ", " + fields) + "}";
}

inline CompletionRequest ParseText(ApiKind kind, const std::string& body, const RequestDefaults& defaults = {}) {
  ApiResult<CompletionRequest> result = ParseCompletionRequest(kind, body, defaults);
  if (IsError(result)) {
    ADD_FAILURE() << body << ": " << std::get<ApiError>(result).message;
    return {};
  }
  return std::get<CompletionRequest>(std::move(result));
}
inline CompletionRequest Parse(ApiKind kind, const std::string& fields) {
  return ParseText(kind, BodyOf(kind, fields));
}

inline ApiError RefuseText(ApiKind kind, const std::string& body, const RequestDefaults& defaults = {}) {
  ApiResult<CompletionRequest> result = ParseCompletionRequest(kind, body, defaults);
  if (!IsError(result)) {
    ADD_FAILURE() << body.substr(0, 200) << ": expected an error";
    return {};
  }
  EXPECT_EQ(std::get<ApiError>(result).status, 400) << body.substr(0, 200);
  return std::get<ApiError>(std::move(result));
}
// The field that is to blame.
inline std::string Refused(ApiKind kind, const std::string& fields) {
  return RefuseText(kind, BodyOf(kind, fields)).param;
}

}  // namespace espalier
