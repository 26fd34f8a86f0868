#include "server/completion_response.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace espalier {
namespace {

using Json = nlohmann::json;

const AnswerHead kHead = {.id = "cmpl-1", .created = 1700000000, .model = "tiny", .fingerprint = "b1-espalier"};

CompletionRequest Request(ApiKind kind) {
  CompletionRequest request;
  request.kind = kind;
  request.prompts = {{"Hi"}};
  return request;
}

TokenAnswer Token(int32_t id, const std::string& piece, float logprob, int64_t offset) {
  return {.chosen = {id, piece, logprob}, .top = {{id, piece, logprob}}, .text_offset = offset};
}

ChoiceAnswer Choice(int index, const std::string& text) {
  ChoiceAnswer choice;
  choice.index = index;
  choice.text = text;
  choice.tokens = {5, 6};
  choice.end.reason = FinishReason::kLength;
  choice.end.prompt_tokens = 10;
  choice.end.cached_tokens = 4;
  choice.end.generated_tokens = 3;
  choice.end.prefill_ms = 12;
  choice.end.decode_ms = 8;
  choice.end.plan_text = "a3=0";
  choice.end.loss = PredictedLoss{.nats = 0.25, .measured = true};
  choice.end.plan_changes = 2;
  choice.end.preemptions = 1;
  return choice;
}

Json Whole(const CompletionRequest& request, const std::vector<ChoiceAnswer>& choices) {
  return Json::parse(WholeAnswer(kHead, request, choices));
}

// The JSON of each event; [DONE] as a string.
std::vector<Json> Events(std::string_view sse) {
  std::vector<Json> events;
  while (!sse.empty()) {
    EXPECT_TRUE(sse.starts_with("data: ")) << sse;
    const size_t end = sse.find("\n\n");
    EXPECT_NE(end, std::string_view::npos) << sse;
    if (!sse.starts_with("data: ") || end == std::string_view::npos) {
      return events;
    }
    const std::string_view data = sse.substr(6, end - 6);
    events.push_back(data == "[DONE]" ? Json("[DONE]") : Json::parse(data));
    sse.remove_prefix(end + 2);
  }
  return events;
}
Json Event(std::string_view sse) {
  const std::vector<Json> events = Events(sse);
  EXPECT_EQ(events.size(), 1u) << sse;
  return events.empty() ? Json() : events[0];
}

TEST(CompletionResponse, WholeCompletionIsOpenAis) {
  const Json answer = Whole(Request(ApiKind::kCompletion), {Choice(0, " there")});
  EXPECT_EQ(answer["id"], "cmpl-1");
  EXPECT_EQ(answer["object"], "text_completion");
  EXPECT_EQ(answer["created"], 1700000000);
  EXPECT_EQ(answer["model"], "tiny");
  EXPECT_EQ(answer["system_fingerprint"], "b1-espalier");
  EXPECT_EQ(answer["choices"],
            Json::parse(R"([{"text": " there", "index": 0, "logprobs": null, "finish_reason": "length"}])"));
  EXPECT_EQ(answer["usage"], Json::parse(R"({"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13,
                                             "prompt_tokens_details": {"cached_tokens": 4}})"));
  EXPECT_EQ(answer["espalier"], Json::parse(R"({"plan": "a3=0", "predicted_loss_nats": 0.25,
                                                "predicted_loss_measured": true, "plan_changes": 2, "preemptions": 1})"));
  EXPECT_EQ(answer["timings"], Json::parse(R"({"cache_n": 4, "prompt_n": 6, "prompt_ms": 12.0,
    "prompt_per_token_ms": 2.0, "prompt_per_second": 500.0, "predicted_n": 3, "predicted_ms": 8.0,
    "predicted_per_token_ms": 4.0, "predicted_per_second": 250.0})"));
}

TEST(CompletionResponse, WholeChatIsOpenAis) {
  ChoiceAnswer choice = Choice(0, "Hello");
  choice.end.reason = FinishReason::kEndOfText;
  choice.end.loss.reset();
  choice.scores = {Token(5, "Hello", -0.5f, 0)};
  const Json answer = Whole(Request(ApiKind::kChat), {choice});
  EXPECT_EQ(answer["object"], "chat.completion");
  EXPECT_EQ(answer["choices"][0]["message"], Json::parse(R"({"role": "assistant", "content": "Hello"})"));
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(answer["choices"][0]["logprobs"]["content"], Json::parse(R"([{"id": 5, "token": "Hello",
    "bytes": [72, 101, 108, 108, 111], "logprob": -0.5, "top_logprobs": [{"id": 5, "token": "Hello",
    "bytes": [72, 101, 108, 108, 111], "logprob": -0.5}]}])"));
  EXPECT_TRUE(answer["espalier"]["predicted_loss_nats"].is_null());
  EXPECT_EQ(answer["espalier"]["predicted_loss_measured"], false);
}

TEST(CompletionResponse, WholeNativeIsLlamaServers) {
  CompletionRequest request = Request(ApiKind::kNative);
  request.return_tokens = true;
  request.max_tokens = 3;
  ChoiceAnswer choice = Choice(0, "a\nb");
  choice.stopping_word = "END";
  choice.end.reason = FinishReason::kCancelled;
  choice.prompt_text = "Hi";
  choice.has_new_line = true;
  choice.seed = 7;
  const Json answer = Whole(request, {choice});
  EXPECT_EQ(answer["content"], "a\nb");
  EXPECT_EQ(answer["tokens"], Json::parse("[5, 6]"));
  EXPECT_EQ(answer["stop"], true);
  EXPECT_EQ(answer["stop_type"], "word");
  EXPECT_EQ(answer["stopping_word"], "END");
  EXPECT_EQ(answer["truncated"], false);
  EXPECT_EQ(answer["has_new_line"], true);
  EXPECT_EQ(answer["prompt"], "Hi");
  EXPECT_EQ(answer["tokens_predicted"], 3);
  EXPECT_EQ(answer["tokens_evaluated"], 10);
  EXPECT_EQ(answer["timings"]["prompt_n"], 6);
  EXPECT_EQ(answer["generation_settings"]["seed"], 7);
  EXPECT_EQ(answer["generation_settings"]["n_predict"], 3);
  EXPECT_EQ(answer["espalier"]["plan"], "a3=0");
  EXPECT_FALSE(answer.contains("completion_probabilities"));
}

TEST(CompletionResponse, NativeTellsTokensAndScoresOnlyIfAsked) {
  CompletionRequest request = Request(ApiKind::kNative);
  ChoiceAnswer choice = Choice(0, "x");
  EXPECT_EQ(Whole(request, {choice})["tokens"], Json::array());
  choice.scores = {Token(5, "x", -1, 0)};
  const Json scored = Whole(request, {choice})["completion_probabilities"];
  ASSERT_EQ(scored.size(), 1u);
  EXPECT_EQ(scored[0]["id"], 5);
  EXPECT_EQ(scored[0]["top_logprobs"].size(), 1u);
}

TEST(CompletionResponse, NativeAnswersAListOfPromptsWithAList) {
  CompletionRequest request = Request(ApiKind::kNative);
  EXPECT_TRUE(Whole(request, {Choice(0, "a")}).is_object());
  EXPECT_EQ(Whole(request, {Choice(0, "a"), Choice(1, "b")})[1]["content"], "b");
  request.several_prompts = true;
  EXPECT_EQ(Whole(request, {Choice(0, "a")}).size(), 1u);
}

TEST(CompletionResponse, NativeGivesOnlyTheFieldsAskedFor) {
  CompletionRequest request = Request(ApiKind::kNative);
  request.max_tokens = 9;
  request.response_fields = {"content", "generation_settings/n_predict", "missing", "content/x", "", "a//b"};
  EXPECT_EQ(Whole(request, {Choice(0, "a")}), Json::parse(R"({"content": "a", "generation_settings/n_predict": 9})"));
}

TEST(CompletionResponse, FinishReasonsFollowFromTheEndAndTheStopString) {
  const auto name = [](FinishReason reason, bool word) { return std::string(StopTypeName(StopKindOf(reason, word))); };
  EXPECT_EQ(name(FinishReason::kEndOfText, false), "eos");
  EXPECT_EQ(name(FinishReason::kLength, false), "limit");
  EXPECT_EQ(name(FinishReason::kCancelled, false), "none");
  for (const FinishReason reason : {FinishReason::kEndOfText, FinishReason::kLength, FinishReason::kCancelled}) {
    EXPECT_EQ(name(reason, true), "word");
  }
  EXPECT_EQ(FinishReasonJson(StopKind::kEndOfText), "stop");
  EXPECT_EQ(FinishReasonJson(StopKind::kWord), "stop");
  EXPECT_EQ(FinishReasonJson(StopKind::kLimit), "length");
  EXPECT_TRUE(FinishReasonJson(StopKind::kNone).is_null());
}

TEST(CompletionResponse, OnlyFailureAndShutdownAreErrors) {
  RequestEnd end;
  for (const FinishReason reason : {FinishReason::kEndOfText, FinishReason::kLength, FinishReason::kCancelled}) {
    end.reason = reason;
    EXPECT_FALSE(ErrorOfEnd(end));
  }
  end.reason = FinishReason::kShutdown;
  EXPECT_EQ(ErrorOfEnd(end)->status, 503);
  end.reason = FinishReason::kFailed;
  EXPECT_EQ(ErrorOfEnd(end)->status, 500);
  end.status = OutOfBudget("needs 5 bytes, has 3");
  EXPECT_EQ(ErrorOfEnd(end)->message, "needs 5 bytes, has 3");
}

// What lm-evaluation-harness reads: sums of token_logprobs, and whether each equals the largest of its top_logprobs.
TEST(CompletionResponse, EchoedScoresBeginWithATokenThatNothingPredicts) {
  ChoiceAnswer choice = Choice(0, "Hi there");
  TokenAnswer first = Token(1, "Hi", 0, 0);
  first.scored = false;
  TokenAnswer second = Token(2, " there", -2.5f, 2);
  second.top = {{9, " you", -0.5f}};
  choice.scores = {first, second};
  EXPECT_EQ(Whole(Request(ApiKind::kCompletion), {choice})["choices"][0]["logprobs"],
            Json::parse(R"({"tokens": ["Hi", " there"], "token_logprobs": [null, -2.5],
                            "top_logprobs": [null, {" you": -0.5, " there": -2.5}], "text_offset": [0, 2]})"));
}

TEST(CompletionResponse, LogprobsStayFiniteAndTheChosenTokenCounts) {
  ChoiceAnswer choice = Choice(0, "x");
  TokenAnswer token = Token(1, "x", -std::numeric_limits<float>::infinity(), 0);
  token.top = {{2, "x", -0.5f}, {3, "\xE2\x82", -0.25f}, {4, "\xE2", std::nanf("")}};
  choice.scores = {token};
  const Json logprobs = Whole(Request(ApiKind::kCompletion), {choice})["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["token_logprobs"][0], -9999);
  EXPECT_EQ(logprobs["top_logprobs"][0],
            Json::parse(R"({"x": -9999.0, "bytes:\\xe2\\x82": -0.25, "bytes:\\xe2": -9999.0})"));
}

TEST(CompletionResponse, UsageCountsEachPromptOnce) {
  CompletionRequest request = Request(ApiKind::kCompletion);
  request.n = 2;
  const Json answer = Whole(request, {Choice(0, "a"), Choice(1, "b"), Choice(2, "c"), Choice(3, "d")});
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 20);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 12);
  EXPECT_EQ(answer["usage"]["total_tokens"], 32);
  EXPECT_EQ(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 8);
  EXPECT_EQ(answer["espalier"]["preemptions"], 4);
  EXPECT_EQ(answer["espalier"]["plan_changes"], 2);
  EXPECT_EQ(answer["choices"][3]["text"], "d");
}

TEST(CompletionResponse, TimingsOfNothingAreZeroNotInfinite) {
  const RequestEnd end;
  const RequestEnd* const ends[] = {&end};
  const auto timings = TimingsJson(ends);
  for (const auto& [name, value] : timings.items()) {
    EXPECT_EQ(value, 0) << name;
  }
}

TEST(AnswerStream, ChatGivesTheRoleThenTextThenTheReason) {
  CompletionRequest request = Request(ApiKind::kChat);
  request.stream = true;
  const AnswerStream stream(kHead, request);
  const Json begin = Event(stream.Begin(1));
  EXPECT_EQ(begin["object"], "chat.completion.chunk");
  EXPECT_EQ(begin["choices"][0]["index"], 1);
  EXPECT_EQ(begin["choices"][0]["delta"], Json::parse(R"({"role": "assistant", "content": null})"));
  EXPECT_TRUE(begin["choices"][0]["finish_reason"].is_null());

  StreamPart part;
  part.index = 1;
  part.text = "say \"\xE2\x82\xAC\"\n";
  const Json chunk = Event(stream.Part(part));
  EXPECT_EQ(chunk["id"], "cmpl-1");
  EXPECT_EQ(chunk["object"], "chat.completion.chunk");
  EXPECT_EQ(chunk["created"], 1700000000);
  EXPECT_EQ(chunk["model"], "tiny");
  EXPECT_FALSE(chunk.contains("usage"));
  EXPECT_EQ(chunk["choices"], Json::parse("[{\"index\": 1, \"delta\": {\"content\": \"say \\\"\\u20ac\\\"\\n\"}, "
                                          "\"logprobs\": null, \"finish_reason\": null}]"));

  const Json last = Event(stream.Finish(Choice(1, "")));
  EXPECT_EQ(last["choices"][0]["delta"], Json::object());
  EXPECT_EQ(last["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(last["timings"]["predicted_n"], 3);
  EXPECT_EQ(last["espalier"]["plan"], "a3=0");
  const std::vector<ChoiceAnswer> choices = {Choice(0, ""), Choice(1, "")};
  EXPECT_EQ(Event(stream.End(choices)), "[DONE]");
}

TEST(AnswerStream, UsageIsAChunkOfItsOwn) {
  for (const ApiKind kind : {ApiKind::kChat, ApiKind::kCompletion}) {
    CompletionRequest request = Request(kind);
    request.include_usage = true;
    const AnswerStream stream(kHead, request);
    EXPECT_TRUE(Event(stream.Part({})).at("usage").is_null());
    const std::vector<ChoiceAnswer> choices = {Choice(0, "")};
    EXPECT_FALSE(Event(stream.Finish(choices[0])).contains("espalier"));
    const std::vector<Json> end = Events(stream.End(choices));
    ASSERT_EQ(end.size(), 2u);
    EXPECT_EQ(end[0]["choices"], Json::array());
    EXPECT_EQ(end[0]["usage"]["total_tokens"], 13);
    EXPECT_TRUE(end[0].contains("timings") && end[0].contains("espalier"));
    EXPECT_EQ(end[1], "[DONE]");
  }
}

TEST(AnswerStream, CompletionCarriesScoresWithItsText) {
  const AnswerStream stream(kHead, Request(ApiKind::kCompletion));
  EXPECT_EQ(stream.Begin(0), "");
  const std::vector<TokenAnswer> scores = {Token(5, "a", -1, 4)};
  StreamPart part;
  part.text = "a";
  part.scores = scores;
  const Json chunk = Event(stream.Part(part));
  EXPECT_EQ(chunk["object"], "text_completion");
  EXPECT_EQ(chunk["choices"][0]["text"], "a");
  EXPECT_EQ(chunk["choices"][0]["logprobs"]["text_offset"], Json::parse("[4]"));
  const Json last = Event(stream.Finish(Choice(0, "whole text")));
  EXPECT_EQ(last["choices"][0]["text"], "");
  EXPECT_EQ(last["choices"][0]["finish_reason"], "length");
}

TEST(AnswerStream, NativeGivesTokensAndCountsAndNoDone) {
  CompletionRequest request = Request(ApiKind::kNative);
  request.stream = true;
  request.return_tokens = true;
  const AnswerStream stream(kHead, request);
  const std::vector<int32_t> tokens = {5, 6};
  const std::vector<TokenAnswer> scores = {Token(5, "a", -1, 0)};
  const RequestEnd so_far = Choice(0, "").end;
  StreamPart part;
  part.text = "ab";
  part.tokens = tokens;
  part.scores = scores;
  part.prompt_tokens = 10;
  part.generated_tokens = 2;
  part.so_far = &so_far;
  const Json chunk = Event(stream.Part(part));
  EXPECT_EQ(chunk["content"], "ab");
  EXPECT_EQ(chunk["tokens"], Json::parse("[5, 6]"));
  EXPECT_EQ(chunk["stop"], false);
  EXPECT_EQ(chunk["tokens_predicted"], 2);
  EXPECT_EQ(chunk["tokens_evaluated"], 10);
  EXPECT_EQ(chunk["timings"]["prompt_n"], 6);
  EXPECT_EQ(chunk["completion_probabilities"].size(), 1u);
  const Json last = Event(stream.Finish(Choice(0, "whole text")));
  EXPECT_EQ(last["content"], "") << "the stream has given it already";
  EXPECT_EQ(last["tokens"], Json::array());
  EXPECT_EQ(last["stop"], true);
  EXPECT_EQ(last["stop_type"], "limit");
  EXPECT_EQ(stream.End({}), "");
}

TEST(AnswerStream, TextThatIsNotUtf8CannotBreakTheStream) {
  for (const ApiKind kind : {ApiKind::kChat, ApiKind::kCompletion, ApiKind::kNative}) {
    AnswerHead head = kHead;
    head.model = "quoted \"name\" ]}\xFF";
    const AnswerStream stream(head, Request(kind));
    StreamPart part;
    part.text = "\xFF\n\ndata: [DONE]\n\n";
    const Json chunk = Event(stream.Part(part));
    EXPECT_NE(chunk.dump().find("data: [DONE]"), std::string::npos);
  }
}

TEST(AnswerStream, ErrorsAreEvents) {
  const Json event = Event(SseError(UnavailableError("draining")));
  EXPECT_EQ(event["error"]["type"], "unavailable_error");
  EXPECT_EQ(event["error"]["code"], 503);
  EXPECT_EQ(kSseDone, "data: [DONE]\n\n");
}

}  // namespace
}  // namespace espalier
