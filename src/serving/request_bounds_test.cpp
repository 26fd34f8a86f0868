#include "serving/request_bounds.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

namespace espalier {
namespace {

using testing::HasSubstr;

constexpr RequestBounds kBounds = {.cells = 100, .n_vocab = 16};
constexpr RequestRoom kRoom = {.planned_bytes = 123456, .largest_request_cells = 100};

Status Check(size_t prompt_tokens, int64_t max_tokens, const RequestRoom& room = kRoom) {
  LoopRequest request;
  request.prompt.assign(prompt_tokens, 1);
  request.max_tokens = max_tokens;
  return CheckRequest(request, kBounds, room);
}

TEST(CheckRequest, PromptAndAnswerTogetherFillTheContext) {
  EXPECT_TRUE(Check(100, 0).ok());
  EXPECT_TRUE(Check(100, 1).ok()) << "the last token needs no cell";
  EXPECT_TRUE(Check(1, 100).ok());
  for (const auto& [prompt_tokens, max_tokens] : {std::pair<size_t, int64_t>{101, 0}, {100, 2}, {1, 101}, {51, 51}}) {
    const Status status = Check(prompt_tokens, max_tokens);
    ASSERT_FALSE(status.ok()) << prompt_tokens << " + " << max_tokens;
    EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr("the context holds 100"));
  }
}

TEST(CheckRequest, NoMaxTokensOverflows) {
  for (const size_t prompt_tokens : {1, 2, 100}) {
    const Status status = Check(prompt_tokens, INT64_MAX);
    ASSERT_FALSE(status.ok()) << prompt_tokens;
    EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument);
  }
}

TEST(CheckRequest, NamesTheTokenThatTheModelDoesNotHave) {
  for (const int32_t unknown : {-1, 16, INT32_MAX, INT32_MIN}) {
    LoopRequest request;
    request.prompt = {0, 15, unknown, 3};
    const Status status = CheckRequest(request, kBounds, kRoom);
    ASSERT_FALSE(status.ok()) << unknown;
    EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr("token 2 of the prompt is " + std::to_string(unknown)));
    EXPECT_THAT(status.message(), HasSubstr("0 to 15"));
  }
}

TEST(CheckRequest, WhatTheLimitHasNoRoomForIsAnotherMatter) {
  const RequestRoom tight = {.planned_bytes = 123456, .largest_request_cells = 40};
  EXPECT_TRUE(Check(40, 1, tight).ok());
  const Status status = Check(40, 2, tight);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.code(), ErrorCode::kOutOfBudget);
  EXPECT_THAT(status.message(), HasSubstr("41 KV cells"));
  EXPECT_THAT(status.message(), HasSubstr("123456 bytes has room for 40"));
}

}  // namespace
}  // namespace espalier
