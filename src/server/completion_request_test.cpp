#include "server/completion_request.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>

#include "server/completion_request_for_test.h"

namespace espalier {
namespace {

TEST(CompletionRequest, AbsentAndNullFieldsAreTheServersDefaults) {
  RequestDefaults defaults;
  defaults.sampling.temperature = 0.25f;
  defaults.sampling.top_k = 7;
  for (const ApiKind kind : kAllKinds) {
    const auto request =
        ParseText(kind, BodyOf(kind, R"("temperature": null, "stop": null, "n": null, "max_tokens": null)"), defaults);
    EXPECT_EQ(request.sampling.temperature, 0.25f);
    EXPECT_EQ(request.sampling.top_k, 7);
    EXPECT_EQ(request.sampling.seed, SamplerOptions::kRandomSeed);
    EXPECT_EQ(request.n, 1);
    EXPECT_EQ(request.n_top, -1);
    EXPECT_TRUE(request.stop.empty());
    EXPECT_TRUE(request.cache_prompt);
    EXPECT_FALSE(request.stream);
    EXPECT_EQ(request.max_tokens, kind == ApiKind::kCompletion ? 16 : CompletionRequest::kUnlimited);
  }
}

TEST(CompletionRequest, ErrorsNameFieldExpectedAndFound) {
  const ApiError error = RefuseText(ApiKind::kNative, BodyOf(ApiKind::kNative, R"("top_p": 1.5)"));
  EXPECT_EQ(error.type, "invalid_request_error");
  EXPECT_EQ(error.message, "field 'top_p': expected a number in 0 to 1, found 1.5");
}

// libllama's templates end at a zero byte: the rest of the message would be lost.
TEST(CompletionRequest, MessagesWithZeroBytesAreRefused) {
  const auto refused = [](const std::string& content) {
    return RefuseText(
               ApiKind::kChat,
               R"({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": )" + content + "}]}")
        .param;
  };
  EXPECT_EQ(refused(R"("before\u0000after")"), "messages[1].content");
  EXPECT_EQ(refused(R"([{"type": "text", "text": "\u0000"}])"), "messages[1].content");
}

TEST(CompletionRequest, MaxTokensHasThreeNames) {
  EXPECT_EQ(Parse(ApiKind::kCompletion, R"("max_tokens": 3)").max_tokens, 3);
  EXPECT_EQ(Parse(ApiKind::kChat, R"("max_tokens": 3, "max_completion_tokens": 4)").max_tokens, 4);
  EXPECT_EQ(Parse(ApiKind::kNative, R"("max_tokens": 3, "n_predict": 5)").max_tokens, 5);
  EXPECT_EQ(Parse(ApiKind::kCompletion, R"("max_tokens": -1)").max_tokens, CompletionRequest::kUnlimited);
  EXPECT_EQ(Parse(ApiKind::kCompletion, R"("max_tokens": 0)").max_tokens, 0);
  RequestDefaults defaults;
  defaults.max_tokens = 99;
  for (const ApiKind kind : kAllKinds) {
    EXPECT_EQ(ParseText(kind, BodyOf(kind, ""), defaults).max_tokens, 99);
    EXPECT_EQ(ParseText(kind, BodyOf(kind, R"("max_tokens": 3)"), defaults).max_tokens, 3);
  }
}

TEST(CompletionRequest, AnIntegerMayBeWrittenWithAPoint) {
  EXPECT_EQ(Parse(ApiKind::kChat, R"("max_tokens": 2.0)").max_tokens, 2);
  EXPECT_EQ(Parse(ApiKind::kChat, R"("seed": 1e3)").sampling.seed, 1000u);
  EXPECT_EQ(Parse(ApiKind::kChat, R"("top_k": -1.0)").sampling.top_k, -1);
  EXPECT_EQ(std::get<std::vector<int32_t>>(ParseText(ApiKind::kNative, R"({"prompt": [1, 2.0]})").prompts[0][0]),
            (std::vector<int32_t>{1, 2}));
}

TEST(CompletionRequest, PromptsComeInEveryForm) {
  using Ids = std::vector<int32_t>;
  const auto prompts = [](const std::string& json) {
    return ParseText(ApiKind::kNative, "{\"prompt\": " + json + "}").prompts;
  };
  EXPECT_EQ(prompts(R"("text")"), (std::vector<Prompt>{{"text"}}));
  EXPECT_EQ(prompts("[1, 2]"), (std::vector<Prompt>{{Ids{1, 2}}}));
  EXPECT_EQ(prompts(R"(["a", "b"])"), (std::vector<Prompt>{{"a"}, {"b"}}));
  EXPECT_EQ(prompts("[[1, 2], [3]]"), (std::vector<Prompt>{{Ids{1, 2}}, {Ids{3}}}));
  EXPECT_EQ(prompts(R"([1, 2, "a", 3, "b"])"), (std::vector<Prompt>{{Ids{1, 2}, "a", Ids{3}, "b"}}));
  EXPECT_EQ(prompts(R"([[1, "a"], "b", {"prompt_string": "c"}])"), (std::vector<Prompt>{{Ids{1}, "a"}, {"b"}, {"c"}}));
  EXPECT_EQ(prompts(R"({"prompt_string": "c", "multimodal_data": []})"), (std::vector<Prompt>{{"c"}}));
  EXPECT_TRUE(ParseText(ApiKind::kNative, R"({"prompt": ["a"]})").several_prompts);
  EXPECT_FALSE(ParseText(ApiKind::kNative, R"({"prompt": [1]})").several_prompts);
}

TEST(CompletionRequest, WrongPromptsAreRefusedWithTheirPlace) {
  RequestDefaults defaults;
  defaults.n_vocab = 100;
  defaults.max_choices = 4;
  const auto refused = [&](const std::string& json) {
    return RefuseText(ApiKind::kCompletion, "{\"prompt\": " + json + "}", defaults).param;
  };
  EXPECT_EQ(refused("null"), "prompt");
  EXPECT_EQ(refused("3"), "prompt");
  EXPECT_EQ(refused("true"), "prompt");
  EXPECT_EQ(refused("[]"), "prompt");
  EXPECT_EQ(refused("[100]"), "prompt[0]");
  EXPECT_EQ(refused("[1, -1]"), "prompt[1]");
  EXPECT_EQ(refused("[1, 2.5]"), "prompt[1]");
  EXPECT_EQ(refused("[1, true]"), "prompt[1]");
  EXPECT_EQ(refused("[1, [2]]"), "prompt[1]");
  EXPECT_EQ(refused("[[1], []]"), "prompt[1]");
  EXPECT_EQ(refused("[[1], [2, [3]]]"), "prompt[1][1]");
  EXPECT_EQ(refused(R"({"text": "a"})"), "prompt");
  EXPECT_EQ(refused(R"({"prompt_string": 1})"), "prompt.prompt_string");
  EXPECT_EQ(refused(R"({"prompt_string": "a", "multimodal_data": ["x"]})"), "prompt.multimodal_data");
  EXPECT_EQ(refused(R"(["a", "b", "c", "d", "e"])"), "prompt");
  EXPECT_EQ(RefuseText(ApiKind::kCompletion, R"({"prompt": ["a", "b"], "n": 3})", defaults).param, "n");
  EXPECT_EQ(RefuseText(ApiKind::kNative, "{}").param, "prompt");
}

TEST(CompletionRequest, MessagesAreStringsOrPartsOfText) {
  const auto request = ParseText(ApiKind::kChat, R"({"messages": [
    {"role": "system", "content": "Be brief."},
    {"role": "assistant", "content": null},
    {"role": "tool", "content": ""},
    {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}]})");
  ASSERT_EQ(request.messages.size(), 4u);
  EXPECT_EQ(request.messages[0].content, "Be brief.");
  EXPECT_EQ(request.messages[1].content, "");
  EXPECT_EQ(request.messages[3].role, "user");
  EXPECT_EQ(request.messages[3].content, "one\ntwo");
  EXPECT_FALSE(request.continue_final_message);
}

TEST(CompletionRequest, WrongMessagesAreRefusedWithTheirPlace) {
  const auto refused = [&](const std::string& messages) {
    return RefuseText(ApiKind::kChat, "{\"messages\": " + messages + "}").param;
  };
  EXPECT_EQ(refused("null"), "messages");
  EXPECT_EQ(refused("\"Hi\""), "messages");
  EXPECT_EQ(refused("[]"), "messages");
  EXPECT_EQ(refused("[3]"), "messages[0]");
  EXPECT_EQ(refused("[{}]"), "messages[0].role");
  EXPECT_EQ(refused(R"([{"role": 1, "content": "a"}])"), "messages[0].role");
  EXPECT_EQ(refused(R"([{"role": "wizard", "content": "a"}])"), "messages[0].role");
  EXPECT_EQ(refused(R"([{"role": "user"}])"), "messages[0].content");
  EXPECT_EQ(refused(R"([{"role": "user", "content": 3}])"), "messages[0].content");
  EXPECT_EQ(refused(R"([{"role": "user", "content": [3]}])"), "messages[0].content[0]");
  EXPECT_EQ(refused(R"([{"role": "user", "content": [{"text": "a"}]}])"), "messages[0].content[0]");
  EXPECT_EQ(refused(R"([{"role": "user", "content": [{"type": "text"}]}])"), "messages[0].content[0]");
  EXPECT_EQ(refused(R"([{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}])"), "messages");
  EXPECT_EQ(refused(R"([{"role": "assistant", "tool_calls": [{}]}])"), "messages[0].tool_calls");
  const ApiError image = RefuseText(
      ApiKind::kChat, R"({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]})");
  EXPECT_EQ(image.param, "messages[0].content[0].type");
  EXPECT_NE(image.message.find("image_url"), std::string::npos);
}

TEST(CompletionRequest, AnAnswerGoesOnWithAFinalAssistantMessage) {
  const std::string messages =
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])";
  EXPECT_TRUE(ParseText(ApiKind::kChat, messages + "}").continue_final_message);
  EXPECT_FALSE(ParseText(ApiKind::kChat, messages + R"(, "continue_final_message": false})").continue_final_message);
  EXPECT_TRUE(
      ParseText(ApiKind::kChat, messages + R"(, "add_generation_prompt": false, "continue_final_message": true})")
          .continue_final_message);
  EXPECT_EQ(RefuseText(ApiKind::kChat, messages + R"(, "add_generation_prompt": true, "continue_final_message": true})")
                .param,
            "continue_final_message");
  EXPECT_EQ(Refused(ApiKind::kChat, R"("continue_final_message": true)"), "continue_final_message");
}

TEST(CompletionRequest, WhatIsNotSupportedIsSaidNotIgnored) {
  EXPECT_EQ(Refused(ApiKind::kChat, R"("tools": [{"type": "function"}])"), "tools");
  EXPECT_EQ(Refused(ApiKind::kChat, R"("functions": [{}])"), "functions");
  EXPECT_EQ(Refused(ApiKind::kCompletion, R"("suffix": "end")"), "suffix");
  EXPECT_EQ(Refused(ApiKind::kCompletion, R"("best_of": 2)"), "best_of");
  EXPECT_EQ(Refused(ApiKind::kNative, R"("post_sampling_probs": true)"), "post_sampling_probs");
  EXPECT_EQ(Refused(ApiKind::kChat, R"("tool_choice": "required")"), "tool_choice");
  EXPECT_EQ(Refused(ApiKind::kChat, R"("tool_choice": {"type": "function"})"), "tool_choice");
  EXPECT_EQ(Refused(ApiKind::kNative, R"("samplers": ["temperature", "top_k"])"), "samplers");
  EXPECT_EQ(Refused(ApiKind::kNative, R"("samplers": "kt")"), "samplers");
  EXPECT_EQ(Refused(ApiKind::kNative, R"("n_keep": "all")"), "n_keep");
  EXPECT_EQ(Refused(ApiKind::kNative, R"("t_max_predict_ms": "soon")"), "t_max_predict_ms");
  EXPECT_EQ(Refused(ApiKind::kNative, R"("grammar_lazy": true)"), "grammar_lazy");
  const auto lora = ParseCompletionRequest(ApiKind::kNative, BodyOf(ApiKind::kNative, R"("lora": [{"id": 0}])"), {});
  ASSERT_TRUE(IsError(lora));
  EXPECT_EQ(std::get<ApiError>(lora).status, 501);
  EXPECT_EQ(std::get<ApiError>(lora).param, "lora");
  Parse(ApiKind::kChat, R"("tool_choice": "auto", "lora": [], "n_keep": -1, "grammar_lazy": false)");
  Parse(ApiKind::kNative, R"("samplers": "edskypmxt")");
  Parse(ApiKind::kNative, R"("samplers": ["penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc",
                                          "temperature"])");
  Parse(ApiKind::kChat, R"("tools": [], "tool_choice": "none", "user": "me", "metadata": {"a": 1})");
  Parse(ApiKind::kCompletion, R"("suffix": "", "n": 2, "best_of": 2, "logit_bias": {}, "id_slot": 3)");
  Parse(ApiKind::kNative, R"("post_sampling_probs": false)");
}

TEST(CompletionRequest, StopIsAStringOrAList) {
  EXPECT_EQ(Parse(ApiKind::kChat, R"("stop": "\n")").stop, std::vector<std::string>{"\n"});
  EXPECT_EQ(Parse(ApiKind::kChat, R"("stop": ["a", "", "b"])").stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(Refused(ApiKind::kChat, R"("stop": 3)"), "stop");
  EXPECT_EQ(Refused(ApiKind::kChat, R"("stop": ["a", 3])"), "stop[1]");
  EXPECT_EQ(Refused(ApiKind::kChat, "\"stop\": \"" + std::string(4097, 'a') + "\""), "stop");
  std::string many = "\"a\"";
  for (int i = 0; i < 64; ++i) {
    many += ",\"a\"";
  }
  EXPECT_EQ(Refused(ApiKind::kChat, "\"stop\": [" + many + "]"), "stop");
}

TEST(CompletionRequest, EveryApiAsksForScoresInItsOwnWay) {
  EXPECT_EQ(Parse(ApiKind::kCompletion, R"("logprobs": 0)").n_top, 0);
  EXPECT_EQ(Parse(ApiKind::kCompletion, R"("logprobs": 5)").n_top, 5);
  EXPECT_EQ(Parse(ApiKind::kChat, R"("logprobs": false)").n_top, -1);
  EXPECT_EQ(Parse(ApiKind::kChat, R"("logprobs": true)").n_top, 0);
  EXPECT_EQ(Parse(ApiKind::kChat, R"("logprobs": true, "top_logprobs": 20)").n_top, 20);
  EXPECT_EQ(Parse(ApiKind::kNative, R"("n_probs": 0)").n_top, -1);
  EXPECT_EQ(Parse(ApiKind::kNative, R"("n_probs": 3)").n_top, 3);
  EXPECT_EQ(Parse(ApiKind::kNative, R"("logprobs": 3)").n_top, 3);
  EXPECT_EQ(Refused(ApiKind::kCompletion, R"("logprobs": true)"), "logprobs");
  EXPECT_EQ(Refused(ApiKind::kChat, R"("logprobs": 3)"), "logprobs");
  EXPECT_EQ(Refused(ApiKind::kChat, R"("logprobs": true, "top_logprobs": 21)"), "top_logprobs");
  EXPECT_EQ(Refused(ApiKind::kChat, R"("top_logprobs": 2)"), "top_logprobs");
}

TEST(CompletionRequest, ReadsHowTheAnswerIsDelivered) {
  const auto request = Parse(ApiKind::kCompletion, R"("model": "m", "stream": true, "stream_options":
    {"include_usage": true}, "echo": true, "cache_prompt": false, "return_tokens": true, "timings_per_token": true)");
  EXPECT_EQ(request.model, "m");
  EXPECT_TRUE(request.stream && request.include_usage && request.echo && request.return_tokens);
  EXPECT_TRUE(request.timings_per_token);
  EXPECT_FALSE(request.cache_prompt);
  EXPECT_EQ(Refused(ApiKind::kChat, R"("stream": 1)"), "stream");
  EXPECT_EQ(Refused(ApiKind::kChat, R"("stream_options": 1)"), "stream_options");
  EXPECT_EQ(Refused(ApiKind::kChat, R"("stream_options": {"include_usage": "yes"})"), "stream_options.include_usage");
  EXPECT_EQ(Refused(ApiKind::kChat, R"("model": 1)"), "model");
  EXPECT_EQ(Refused(ApiKind::kNative, R"("response_fields": ["a", 1])"), "response_fields[1]");
}

TEST(CompletionRequest, BodiesThatAreNoObjectAreRefused) {
  for (const ApiKind kind : kAllKinds) {
    for (const std::string body : {"", "{", "[]", "3", "null", "{\"prompt\": \"\xFF\"}", "{'a': 1}", "{} {}",
                                   "{\"prompt\": \"\\ud800\"}", "\"text\""}) {
      EXPECT_EQ(RefuseText(kind, body).type, "invalid_request_error");
    }
  }
}

TEST(CompletionRequest, DeepBodiesAreRefusedBeforeAnythingRecurses) {
  for (const char* open : {"[", "{\"a\":", "[{\"a\":"}) {
    std::string body = R"({"prompt": "a", "x": )";
    for (int i = 0; i < 1000000; ++i) {
      body += open;
    }
    EXPECT_NE(RefuseText(ApiKind::kNative, body).message.find("64 levels"), std::string::npos);
  }
  const auto nested = [](int levels) {
    return R"({"prompt": "a[[[\"[[", "x": )" + std::string(static_cast<size_t>(levels), '[') +
           std::string(static_cast<size_t>(levels), ']') + "}";
  };
  ParseText(ApiKind::kNative, nested(63));
  RefuseText(ApiKind::kNative, nested(64));
}

TEST(CompletionRequest, OfEqualFieldsTheLastCounts) {
  EXPECT_EQ(Parse(ApiKind::kNative, R"("n_predict": "x", "n_predict": 7)").max_tokens, 7);
}

TEST(ApiErrors, AreValidUtf8WhateverTheyQuote) {
  ApiError error = InvalidRequest("stop\xFF", "found '\xE2\x82'");
  error.numbers.emplace_back("n_ctx", 4096);
  const auto json = nlohmann::json::parse(ErrorBody(error));
  EXPECT_EQ(json["error"]["message"], "found '\uFFFD'");
  EXPECT_EQ(json["error"]["param"], "stop\uFFFD");
  EXPECT_EQ(json["error"]["type"], "invalid_request_error");
  EXPECT_EQ(json["error"]["code"], 400);
  EXPECT_EQ(json["error"]["n_ctx"], 4096);
}

TEST(ApiErrors, StatusesSayWhoCanMendThem) {
  EXPECT_EQ(ErrorFromStatus(InvalidArgument("x")).status, 400);
  EXPECT_EQ(ErrorFromStatus(OutOfBudget("x")).status, 400);
  EXPECT_EQ(ErrorFromStatus(OutOfBudget("x")).code, "out_of_budget");
  EXPECT_EQ(ErrorFromStatus(Busy("x")).status, 429);
  EXPECT_EQ(ErrorFromStatus(Busy("x")).type, "rate_limit_error");
  EXPECT_EQ(ErrorFromStatus(Unsupported("x")).status, 501);
  EXPECT_EQ(ErrorFromStatus(Aborted("x")).status, 503);
  EXPECT_EQ(ErrorFromStatus(IoError("x")).status, 500);
  EXPECT_EQ(ErrorFromStatus(NotFound("x")).status, 500);
  EXPECT_TRUE(nlohmann::json::parse(ErrorBody(ServerError("x")))["error"]["param"].is_null());
}

}  // namespace
}  // namespace espalier
