#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "server/completion_request_for_test.h"

namespace espalier {
namespace {

TEST(CompletionRequest, ReadsEverySamplingField) {
  const auto request = Parse(ApiKind::kNative, R"("temperature": 0.5, "dynatemp_range": 0.1, "dynatemp_exponent": 2,
    "top_k": 3, "top_p": 0.5, "min_p": 0.25, "typical_p": 0.75, "top_n_sigma": 1.5, "xtc_probability": 0.125,
    "xtc_threshold": 0.375, "repeat_last_n": 5, "repeat_penalty": 1.25, "presence_penalty": -0.5,
    "frequency_penalty": 0.5, "dry_multiplier": 0.8, "dry_base": 2, "dry_allowed_length": 4, "dry_penalty_last_n": 6,
    "mirostat": 2, "mirostat_tau": 4, "mirostat_eta": 0.25, "ignore_eos": true, "seed": 42, "grammar": "root ::= \"a\"")");
  const SamplerOptions& s = request.sampling;
  EXPECT_EQ(s.temperature, 0.5f);
  EXPECT_EQ(s.dynatemp_range, 0.1f);
  EXPECT_EQ(s.dynatemp_exponent, 2);
  EXPECT_EQ(s.top_k, 3);
  EXPECT_EQ(s.top_p, 0.5f);
  EXPECT_EQ(s.min_p, 0.25f);
  EXPECT_EQ(s.typical_p, 0.75f);
  EXPECT_EQ(s.top_n_sigma, 1.5f);
  EXPECT_EQ(s.xtc_probability, 0.125f);
  EXPECT_EQ(s.xtc_threshold, 0.375f);
  EXPECT_EQ(s.repeat_last_n, 5);
  EXPECT_EQ(s.repeat_penalty, 1.25f);
  EXPECT_EQ(s.presence_penalty, -0.5f);
  EXPECT_EQ(s.frequency_penalty, 0.5f);
  EXPECT_EQ(s.dry_multiplier, 0.8f);
  EXPECT_EQ(s.dry_base, 2);
  EXPECT_EQ(s.dry_allowed_length, 4);
  EXPECT_EQ(s.dry_penalty_last_n, 6);
  EXPECT_EQ(s.mirostat, 2);
  EXPECT_EQ(s.mirostat_tau, 4);
  EXPECT_EQ(s.mirostat_eta, 0.25f);
  EXPECT_TRUE(s.ignore_eos);
  EXPECT_EQ(s.seed, 42u);
  EXPECT_EQ(s.grammar, "root ::= \"a\"");
}

TEST(CompletionRequest, WrongNumbersAreRefusedWithTheirField) {
  const std::vector<std::string> numbers = {"temperature",   "dynatemp_range", "dynatemp_exponent", "top_p",
                                            "min_p",         "typical_p",      "top_n_sigma",       "xtc_probability",
                                            "xtc_threshold", "repeat_penalty", "presence_penalty",  "frequency_penalty",
                                            "dry_base",      "dry_multiplier", "mirostat_tau",      "mirostat_eta"};
  const std::vector<std::string> integers = {
      "top_k",  "repeat_last_n", "dry_allowed_length",    "dry_penalty_last_n", "mirostat",
      "seed",   "max_tokens",    "max_completion_tokens", "n_predict",          "n",
      "n_probs"};
  for (const ApiKind kind : kAllKinds) {
    for (const std::string& name : numbers) {
      for (const char* wrong : {"1e999", "-1e999", "1e300", "-1e300", "true", "\"1\"", "[]", "{}"}) {
        EXPECT_EQ(Refused(kind, fmt::format("\"{}\": {}", name, wrong)), name) << wrong;
      }
    }
    for (const std::string& name : integers) {
      for (const char* wrong : {"1e999", "1.5", "true", "\"1\"", "[1]", "1e17", "9223372036854775808",
                                "18446744073709551615", "18446744073709551616", "-9223372036854775809"}) {
        EXPECT_EQ(Refused(kind, fmt::format("\"{}\": {}", name, wrong)), name) << wrong;
      }
      if (name != "seed") {
        EXPECT_EQ(Refused(kind, fmt::format("\"{}\": -2", name)), name);
        EXPECT_EQ(Refused(kind, fmt::format("\"{}\": 2147483648", name)), name);
      }
    }
  }
}

TEST(CompletionRequest, ReadsWhatSamplersOfLlamaCppTakeBesides) {
  const auto request = Parse(ApiKind::kNative, R"("dry_sequence_breakers": ["|", "ab"], "min_keep": 3,
    "repeat_last_n": -1, "dry_penalty_last_n": -1, "t_max_predict_ms": 250)");
  EXPECT_EQ(request.sampling.dry_sequence_breakers, (std::vector<std::string>{"|", "ab"}));
  EXPECT_EQ(request.sampling.min_keep, 3);
  EXPECT_EQ(request.sampling.repeat_last_n, -1);
  EXPECT_EQ(request.sampling.dry_penalty_last_n, -1);
  EXPECT_EQ(request.max_predict_ms, 250);
  EXPECT_EQ(Refused(ApiKind::kNative, R"("min_keep": -1)"), "min_keep");
  for (const char* wrong : {"7", "[]", "\"|\""}) {
    EXPECT_EQ(Refused(ApiKind::kNative, fmt::format("\"dry_sequence_breakers\": {}", wrong)), "dry_sequence_breakers");
  }
  for (const char* wrong : {"7", "\"\"", "\"a\\u0000\"", "\"01234567890123456789012345678901234567890\""}) {
    EXPECT_EQ(Refused(ApiKind::kNative, fmt::format("\"dry_sequence_breakers\": [\"a\", {}]", wrong)),
              "dry_sequence_breakers[1]");
  }
}

TEST(CompletionRequest, SeedsOf64BitsStayReproducible) {
  EXPECT_EQ(Parse(ApiKind::kChat, R"("seed": -1)").sampling.seed, SamplerOptions::kRandomSeed);
  EXPECT_EQ(Parse(ApiKind::kChat, R"("seed": 4294967294)").sampling.seed, 4294967294u);
  EXPECT_EQ(Parse(ApiKind::kChat, R"("seed": 9223372036854775807)").sampling.seed, 0x80000000u);
  EXPECT_NE(Parse(ApiKind::kChat, R"("seed": -4294967296)").sampling.seed, SamplerOptions::kRandomSeed);
  EXPECT_NE(Parse(ApiKind::kChat, R"("seed": -5)").sampling.seed, SamplerOptions::kRandomSeed);
}

TEST(CompletionRequest, BiasesComeInTheFormsOfBothApis) {
  const auto object = Parse(ApiKind::kChat, R"("logit_bias": {"15": -100, " the": 2.5})");
  ASSERT_EQ(object.sampling.logit_bias.size(), 1u);
  EXPECT_EQ(object.sampling.logit_bias[0].token, 15);
  EXPECT_EQ(object.sampling.logit_bias[0].bias, -100);
  ASSERT_EQ(object.text_biases.size(), 1u);
  EXPECT_EQ(object.text_biases[0].text, " the");
  EXPECT_EQ(object.text_biases[0].bias, 2.5f);
  const auto list = Parse(ApiKind::kNative, R"("logit_bias": [[15, false], ["15", 1]])");
  ASSERT_EQ(list.sampling.logit_bias.size(), 1u);
  EXPECT_TRUE(std::isinf(list.sampling.logit_bias[0].bias));
  EXPECT_EQ(list.text_biases[0].text, "15") << "in a list, a string is text";
}

TEST(CompletionRequest, WrongBiasesAreRefusedWithTheirPlace) {
  EXPECT_EQ(Refused(ApiKind::kNative, R"("logit_bias": 3)"), "logit_bias");
  EXPECT_EQ(Refused(ApiKind::kNative, R"("logit_bias": [3])"), "logit_bias[0]");
  EXPECT_EQ(Refused(ApiKind::kNative, R"("logit_bias": [[1, 2], [1]])"), "logit_bias[1]");
  EXPECT_EQ(Refused(ApiKind::kNative, R"("logit_bias": [[1, true]])"), "logit_bias[0]");
  EXPECT_EQ(Refused(ApiKind::kNative, R"("logit_bias": [[1.5, 1]])"), "logit_bias[0][0]");
  EXPECT_EQ(Refused(ApiKind::kNative, R"("logit_bias": {"7": "much"})"), "logit_bias.7");
  EXPECT_EQ(Refused(ApiKind::kNative, R"("logit_bias": {"-1": 1})"), "logit_bias.-1");
  EXPECT_EQ(Refused(ApiKind::kNative, R"("logit_bias": {"99999999999999999999": 1})"),
            "logit_bias.99999999999999999999");
  RequestDefaults defaults;
  defaults.n_vocab = 100;
  EXPECT_EQ(RefuseText(ApiKind::kChat, BodyOf(ApiKind::kChat, R"("logit_bias": {"100": 1})"), defaults).param,
            "logit_bias.100");
}

}  // namespace
}  // namespace espalier
