#include "server/endpoints.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/bytes.h"
#include "server/api.h"
#include "server/endpoints_fakes_for_test.h"
#include "support/paths.h"

namespace espalier {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr BudgetBase kBase = {.process_bytes = 100, .dense_peak_bytes = 1000};

class EndpointsTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto model = Model::Open(test::ModelPath("espalier-reference-f16.gguf"));
    ASSERT_TRUE(model.ok()) << model.status().message();
    model_ = new std::shared_ptr<const Model>(*model);
    auto tokenizer = Tokenizer::Open(**model_);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    tokenizer_ = tokenizer->release();
  }
  static void TearDownTestSuite() {
    delete tokenizer_;
    delete model_;
  }

  void SetUp() override {
    served_.model = *model_;
    served_.tokenizer = tokenizer_;
    served_.loop = &loop_;
    served_.budget = &budget_;
    served_.base = kBase;
    served_.name = "reference";
    served_.context_tokens = 256;
    served_.n_parallel = 2;
    served_.created_unix = 1700000000;
    loop_.state.plan = std::make_shared<const Plan>(*Plan::Parse("a0=0", (*model_)->n_layer()));
    loop_.state.managed.weight_bytes = 400;
    loop_.state.process_bytes = 100;
    loop_.state.minimum_bytes = 150;
    loop_.state.limit_bytes = 2000;
  }

  static Json BodyOf(const HttpResponse& response, int status = 200) {
    EXPECT_EQ(response.status, status) << response.body;
    return Json::parse(response.body);
  }
  template <class Endpoint>
  Json Answer(Endpoint endpoint, const Json& body, int status = 200) {
    const auto result = endpoint(served_, body.dump());
    EXPECT_FALSE(IsError(result)) << ErrorBody(std::get<ApiError>(result));
    return IsError(result) ? Json() : BodyOf(std::get<HttpResponse>(result), status);
  }
  template <class Endpoint>
  ApiError Error(Endpoint endpoint, const std::string& body) {
    const auto result = endpoint(served_, body);
    EXPECT_TRUE(IsError(result)) << body << ": " << std::get<HttpResponse>(result).body;
    return IsError(result) ? std::get<ApiError>(result) : ApiError();
  }

  static std::shared_ptr<const Model>* model_;
  static const Tokenizer* tokenizer_;
  FakeLoop loop_;
  BudgetSources budget_{std::nullopt, kBase};
  Served served_;
};
std::shared_ptr<const Model>* EndpointsTest::model_ = nullptr;
const Tokenizer* EndpointsTest::tokenizer_ = nullptr;

// --- about the model

TEST_F(EndpointsTest, ModelsTellsPlanBudgetAndFootprint) {
  const Json answer = BodyOf(ModelsAnswer(served_));
  ASSERT_EQ(answer["data"].size(), 1u);
  const Json& model = answer["data"][0];
  EXPECT_EQ(model["id"], "reference");
  EXPECT_EQ(model["created"], 1700000000);
  EXPECT_EQ(model["meta"]["plan"], "a0=0");
  EXPECT_EQ(model["meta"]["budget_bytes"], 2000);
  EXPECT_EQ(model["meta"]["managed_bytes"], 400);
  EXPECT_EQ(model["meta"]["n_ctx"], 256);
  EXPECT_EQ(model["meta"]["n_vocab"], served_.tokenizer->n_vocab());
  EXPECT_EQ(model["meta"]["quantization"], "F16");
  EXPECT_TRUE(model["meta"]["predicted_loss_nats"].is_null());
  EXPECT_GT(model["meta"]["size"], model["meta"]["n_params"]);  // two bytes each, and some more
  EXPECT_EQ(answer["models"][0]["model"], "reference");
}

TEST_F(EndpointsTest, PropsHasDefaultsAndSpecialTokens) {
  served_.sampling.top_k = 17;
  const Json props = BodyOf(PropsAnswer(served_));
  EXPECT_EQ(props["default_generation_settings"]["n_ctx"], 256);
  EXPECT_EQ(props["default_generation_settings"]["params"]["top_k"], 17);
  EXPECT_EQ(props["total_slots"], 2);
  EXPECT_EQ(props["bos_token"], "<s>");
  EXPECT_EQ(props["eos_token"], "</s>");
  EXPECT_THAT(props["model_path"].get<std::string>(), HasSubstr("espalier-reference-f16.gguf"));
  EXPECT_EQ(props["is_sleeping"], false);
}

TEST_F(EndpointsTest, SlotsAreAsManyAsRunAtOnce) { EXPECT_EQ(BodyOf(SlotsAnswer(served_)).size(), 2u); }

// lm-evaluation-harness takes the first token of the text as the token's id.
TEST_F(EndpointsTest, SpecialTokensOfTokenizerInfoAreOneTokenEach) {
  const Json info = BodyOf(TokenizerInfoAnswer(served_));
  for (const auto& [name, id] :
       {std::pair("bos_token", served_.tokenizer->bos()), std::pair("eos_token", served_.tokenizer->eos())}) {
    const Json answer = Answer(TokenizeAnswer, {{"prompt", info[name]}, {"add_special_tokens", false}});
    EXPECT_EQ(answer["tokens"], Json::array({id})) << name;
  }
}

// --- text

TEST_F(EndpointsTest, TokenizeAddsSpecialTokensAsEachApiDoes) {
  const Json plain = *served_.tokenizer->Encode("Once upon", false, true);
  const Json with_bos = *served_.tokenizer->Encode("Once upon", true, true);
  ASSERT_NE(plain, with_bos);
  EXPECT_EQ(Answer(TokenizeAnswer, {{"content", "Once upon"}})["tokens"], plain);
  EXPECT_EQ(Answer(TokenizeAnswer, {{"content", "Once upon"}, {"add_special", true}})["tokens"], with_bos);
  EXPECT_EQ(Answer(TokenizeAnswer, {{"prompt", "Once upon"}, {"add_special_tokens", false}})["tokens"], plain);
  const Json vllm = Answer(TokenizeAnswer, {{"prompt", "Once upon"}});
  EXPECT_EQ(vllm["tokens"], with_bos);
  EXPECT_EQ(vllm["count"], with_bos.size());
  EXPECT_EQ(vllm["max_model_len"], 256);
}

TEST_F(EndpointsTest, TokenizeReadsSpecialTokensUnlessToldNotTo) {
  EXPECT_EQ(Answer(TokenizeAnswer, {{"content", "</s>"}})["tokens"], Json::array({served_.tokenizer->eos()}));
  EXPECT_GT(Answer(TokenizeAnswer, {{"content", "</s>"}, {"parse_special", false}})["tokens"].size(), 1u);
}

TEST_F(EndpointsTest, TokenizeTakesTextsAndTokensMixed) {
  Json expected = *served_.tokenizer->Encode("Once", true, true);
  const size_t first = expected.size();
  expected.push_back(7);
  const Json last = *served_.tokenizer->Encode("upon", false, true);
  for (const Json& token : last) {
    expected.push_back(token);
  }
  ASSERT_GT(expected.size(), first + 1);
  EXPECT_EQ(Answer(TokenizeAnswer, {{"content", {"Once", 7, "upon"}}, {"add_special", true}})["tokens"], expected);
}

TEST_F(EndpointsTest, PiecesInsideACharacterAreTheirBytes) {
  const Json tokens = Answer(TokenizeAnswer, {{"content", "a媽"}, {"with_pieces", true}})["tokens"];
  std::string text;
  bool bytes = false;
  for (const Json& token : tokens) {
    EXPECT_TRUE(token["id"].is_number_integer());
    if (token["piece"].is_string()) {
      text += token["piece"].get<std::string>();
      continue;
    }
    bytes = true;
    for (const Json& byte : token["piece"]) {
      text += static_cast<char>(byte.get<int>());
    }
  }
  EXPECT_TRUE(bytes);
  EXPECT_EQ(text, " a媽");
}

TEST_F(EndpointsTest, DetokenizeGivesTextThatHasTheSameTokens) {
  for (const std::string text : {"Once upon a time, 媽.", " two  spaces", "<s> Once", "</s>"}) {
    const Json tokens = Answer(TokenizeAnswer, {{"prompt", text}, {"add_special_tokens", false}})["tokens"];
    const Json answer = Answer(DetokenizeAnswer, {{"tokens", tokens}});
    EXPECT_EQ(Answer(TokenizeAnswer, {{"prompt", answer["prompt"]}, {"add_special_tokens", false}})["tokens"], tokens);
  }
  const Json tokens = Answer(TokenizeAnswer, {{"content", "Once upon"}})["tokens"];
  EXPECT_EQ(Answer(DetokenizeAnswer, {{"tokens", tokens}})["content"], " Once upon");  // as llama-server has it
  EXPECT_EQ(Answer(DetokenizeAnswer, {{"tokens", tokens}})["prompt"], "Once upon");
}

TEST_F(EndpointsTest, DetokenizeOfNothingIsEmpty) {
  EXPECT_EQ(Answer(DetokenizeAnswer, {{"tokens", Json::array()}})["content"], "");
}

TEST_F(EndpointsTest, TextEndpointsNameTheFieldThatIsWrong) {
  const std::string beyond = std::to_string(served_.tokenizer->n_vocab());
  EXPECT_EQ(Error(TokenizeAnswer, "{}").param, "content");
  EXPECT_EQ(Error(TokenizeAnswer, R"({"content": 5})").param, "content");
  EXPECT_EQ(Error(TokenizeAnswer, R"({"prompt": ["a"]})").param, "prompt");
  EXPECT_EQ(Error(TokenizeAnswer, R"({"content": ["a", -1]})").param, "content[1]");
  EXPECT_EQ(Error(TokenizeAnswer, R"({"content": "a", "with_pieces": 1})").param, "with_pieces");
  EXPECT_EQ(Error(TokenizeAnswer, "[").status, 400);
  EXPECT_EQ(Error(DetokenizeAnswer, "{}").param, "tokens");
  EXPECT_EQ(Error(DetokenizeAnswer, R"({"tokens": "1"})").param, "tokens");
  EXPECT_EQ(Error(DetokenizeAnswer, R"({"tokens": [1, )" + beyond + "]}").param, "tokens[1]");
  EXPECT_EQ(Error(DetokenizeAnswer, R"({"tokens": [1.5]})").param, "tokens[0]");
  EXPECT_EQ(Error(DetokenizeAnswer, R"({"tokens": [18446744073709551616]})").status, 400);
  EXPECT_EQ(Error(ApplyTemplateAnswer, R"({"messages": []})").param, "messages");
  EXPECT_EQ(Error(ApplyTemplateAnswer, R"({"messages": [{"role": "pope", "content": ""}]})").param, "messages[0].role");
}

// --- Espalier's own

TEST_F(EndpointsTest, MemoryAddsWhatTheKernelSays) {
  const Json memory = BodyOf(MemoryAnswer(served_));
  EXPECT_EQ(memory["used_bytes"], 500);
  EXPECT_GT(memory["anonymous_bytes"], 100);
  EXPECT_EQ(memory["measured_managed_bytes"].get<uint64_t>(), memory["anonymous_bytes"].get<uint64_t>() - 100);
  EXPECT_GT(memory["reclaimable_bytes"], 0);
  EXPECT_FALSE(BodyOf(StateAnswer(served_))["memory"].contains("anonymous_bytes"));
}

TEST_F(EndpointsTest, PlanHasTheBytesOfEveryBlockOfTheFile) {
  const Json plan = BodyOf(PlanAnswer(served_));
  ASSERT_EQ(plan["blocks"].size(), static_cast<size_t>(served_.model->n_block()));
  EXPECT_EQ(plan["blocks"][0]["state"], "dropped");
  EXPECT_EQ(plan["blocks"][1]["name"], "f0");
  EXPECT_EQ(plan["blocks"][1]["bytes"], served_.model->block({1}).file_bytes);
  EXPECT_EQ(BodyOf(StateAnswer(served_))["plan"], plan);
}

TEST_F(EndpointsTest, BudgetIsSetAndTheLoopWoken) {
  const Json answer = Answer(SetBudgetAnswer, {{"memory_budget", "1KiB"}}, 202);
  EXPECT_EQ(answer["budget_bytes"], 1024);
  EXPECT_EQ(answer["deadline_ms"], 500);  // a step and a tick: nothing is above the limit
  EXPECT_EQ(budget_.setting(), Budget::Bytes(1024));
  EXPECT_EQ(loop_.wakes, 1);
}

TEST_F(EndpointsTest, BudgetTakesSharesNumbersAndAuto) {
  EXPECT_EQ(Answer(SetBudgetAnswer, {{"memory_budget", "70%"}}, 202)["budget_bytes"], 800);
  EXPECT_EQ(budget_.setting(), Budget::Percent(70));
  EXPECT_EQ(Answer(SetBudgetAnswer, {{"memory_budget", 700}}, 202)["budget_bytes"], 700);
  EXPECT_EQ(budget_.setting(), Budget::Bytes(700));
  const Json automatic = Answer(SetBudgetAnswer, {{"memory_budget", "auto"}}, 202);
  EXPECT_TRUE(automatic["budget_bytes"].is_null());
  EXPECT_EQ(automatic["source"], "auto");
  EXPECT_EQ(budget_.setting(), std::nullopt);
}

TEST_F(EndpointsTest, DeadlineGrowsWithWhatHasToMove) {
  loop_.state.managed.weight_bytes = 4 * kGiB;
  loop_.loop_options.tick_ms = 100;
  EXPECT_EQ(Answer(SetBudgetAnswer, {{"memory_budget", 2 * kGiB + 100}}, 202)["deadline_ms"], 250 + 100 + 50);
}

TEST_F(EndpointsTest, BudgetThatCanNeverBeMetIsAConflictAndChangesNothing) {
  budget_.SetOperator(Budget::Bytes(999));
  const ApiError error = Error(SetBudgetAnswer, R"({"memory_budget": 149})");
  EXPECT_EQ(error.status, 409);
  const Json body = Json::parse(ErrorBody(error))["error"];
  EXPECT_EQ(body["code"], "budget_below_minimum");
  EXPECT_EQ(body["minimum_bytes"], 150);
  EXPECT_EQ(body["budget_bytes"], 149);
  EXPECT_EQ(budget_.setting(), Budget::Bytes(999));
  EXPECT_EQ(loop_.wakes, 0);
  Answer(SetBudgetAnswer, {{"memory_budget", 150}}, 202);  // the minimum itself is enough
}

TEST_F(EndpointsTest, BudgetRefusesWhatIsNone) {
  for (const char* value : {"0", "-5", "1.5", "1e30", "18446744073709551615", "18446744073709551616", "true", "null",
                            "[700]", "\"\"", "\"0\"", "\"lots\"", "\"101%\"", "\"-1MiB\"", "\"99999999999GiB\""}) {
    const ApiError error = Error(SetBudgetAnswer, std::string(R"({"memory_budget": )") + value + "}");
    EXPECT_EQ(error.status, 400) << value;
    EXPECT_EQ(error.param, "memory_budget") << value;
  }
  EXPECT_EQ(Error(SetBudgetAnswer, "{}").param, "memory_budget");
  EXPECT_EQ(Error(SetBudgetAnswer, R"({"memory_budget": 700, "bugdet": 1})").param, "bugdet");
  EXPECT_EQ(Error(SetBudgetAnswer, "700").status, 400);
  EXPECT_EQ(budget_.setting(), std::nullopt);
  EXPECT_EQ(loop_.wakes, 0);
}

// --- before a body comes

TEST_F(EndpointsTest, HeadsAreRefusedForWhatNoBodyCouldMend) {
  Api api({.keys = {"key"}});
  const auto status = [&api](const std::string& method, const std::string& path, HttpHeaders headers = {}) {
    const auto refusal = api.Refuse({method, path, "", std::move(headers), "", ""});
    return refusal ? refusal->status : 0;
  };
  const HttpHeaders key = {{"Authorization", "Bearer key"}};
  EXPECT_EQ(status("POST", "/v1/completions"), 401);
  EXPECT_EQ(status("POST", "/v1/completions", {{"X-Api-Key", "other"}}), 401);
  EXPECT_EQ(status("POST", "/v1/completions", key), 503);  // no model yet
  EXPECT_EQ(status("POST", "/health"), 405);
  EXPECT_EQ(status("POST", "/nowhere"), 404);
  EXPECT_EQ(status("POST", "/v1/embeddings"), 501);
  api.Attach(served_);
  EXPECT_EQ(status("POST", "/v1/completions", key), 0);
  EXPECT_EQ(status("PUT", "/v1/espalier/budget", key), 0);
  EXPECT_EQ(status("PUT", "/v1/espalier/budget"), 401);
  const auto refusal = api.Refuse({"POST", "/tokenize", "", {{"Origin", "http://a"}}, "", ""});
  ASSERT_TRUE(refusal);
  EXPECT_THAT(refusal->headers, testing::Contains(testing::Pair("WWW-Authenticate", "Bearer")));
  EXPECT_THAT(refusal->headers, testing::Contains(testing::Pair("Access-Control-Allow-Origin", "http://a")));
  EXPECT_THAT(refusal->body, HasSubstr("invalid_api_key"));
  api.Detach();
}

}  // namespace
}  // namespace espalier
