#include "text/gbnf.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "support/paths.h"
#include "text/sampler.h"

namespace espalier {
namespace {

using ::testing::HasSubstr;

std::string Judge(std::string_view text) {
  const Status status = CheckGbnf(text, [](std::string_view token) { return token == "<end>" || token == "<[7]>"; });
  return status.ok() ? "" : status.message();
}

std::string Repeat(std::string_view part, int times) {
  std::string text;
  for (int i = 0; i < times; ++i) {
    text += part;
  }
  return text;
}

// root ::= body0, rule i ::= `body` with {0} for the next rule, and the last one ::= "x".
std::string Chain(int length, const std::string& body) {
  std::string text = "root ::= r0\n";
  for (int i = 0; i < length; ++i) {
    text += fmt::format("r{} ::= {}\n", i, fmt::format(fmt::runtime(body), fmt::format("r{}", i + 1)));
  }
  return text + fmt::format("r{} ::= \"x\"\n", length);
}

// What llama.cpp's own grammars use.
const char* const kGood[] = {
    "root ::= \"yes\" | \"no\"",
    "# a comment (\"[{\nroot ::= \"(((\" [(\\]\\[^-] # )))\n",
    "root   ::= (expr \"=\" ws term \"\\n\")+\r\nexpr ::= term ([-+*/] term)*\nterm ::= ident | num | \"(\" ws expr "
    "\")\" ws\n"
    "ident ::= [a-z] [a-z0-9_]* ws\nnum ::= [0-9]+ ws\nws ::= [ \\t\\n]*",
    "root ::= (\n  \"a\" |\n  # within\n  \"b\"\n)\n\n\nother ::= .",
    "root ::= \"\\x41\\u00e9\\U0001F600\\t\\r\\n\\\\\\\"\" [^\\x00-\\x1f\\x7f] \"ä€😀\"",
    "root ::= <end> !<[7]> \"a\"{3} \"b\"{2,} \"c\"{0,4} \"d\"{ 1 , 3 } [a-]",
    "root ::= \"a\" root",
    "root ::= \"\" | (\"a\"?)*",
    "root ::= \"a\"\nroot ::= \"b\"",
    "root ::= \"a\"{0}",
    "root ::= |",
};

TEST(Gbnf, TakesWhatLlamaCppTakes) {
  for (const char* text : kGood) {
    EXPECT_EQ(Judge(text), "") << text;
  }
  EXPECT_EQ(Judge(Chain(500, "{} \"x\"")), "");
  EXPECT_EQ(Judge(Chain(900, "(\"a\" {0})? {0}")), "");
  EXPECT_EQ(Judge("root ::= " + Repeat("(", 200) + "\"x\"" + Repeat(")", 200)), "");
  EXPECT_EQ(Judge("root ::= \"x\"{0,1000} [a-z]{500,999}"), "");
}

TEST(Gbnf, NamesThePlace) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"", "rule named root, found none"},
      {"other ::= \"a\"", "rule named root"},
      {"root ::= missing", "rule 'missing' is used, but not defined"},
      {"root ::= missing{0}", "rule 'missing' is used"},
      {"root : \"a\"", "byte 5: expected \"::=\", found ': \"a\"'"},
      {"= \"a\"", "byte 0: expected the name of a rule"},
      {"root ::= (", "byte 10: expected an item, \"|\" or \")\", found the end"},
      {"root ::= )", "byte 9: expected an item, \"|\" or the end of the rule, found ')'"},
      {"root ::= \"abc", "byte 13: expected the end of the string, found the end"},
      {"root ::= [abc", "byte 13: expected \"]\""},
      {"root ::= [a-", "byte 12: expected \"]\""},
      {"root ::= \"\\q\"", "byte 10: expected one of the escapes"},
      {"root ::= \"\\", "byte 10: expected one of the escapes"},
      {"root ::= \"\\x4g\"", "byte 10: expected 2 hexadecimal digits"},
      {"root ::= \"\\u12\"", "byte 10: expected 4 hexadecimal digits"},
      {"root ::= *", "byte 9: expected an item to repeat"},
      {"root ::= \"\"*", "byte 11: expected an item to repeat"},
      {"root ::= \"a\" | +", "byte 15: expected an item to repeat"},
      {"root ::= \"a\"{", "byte 13: expected a number of repetitions"},
      {"root ::= \"a\"{1", "byte 14: expected \"}\""},
      {"root ::= \"a\"{5,2}", "byte 12: expected fewer than 2000 repetitions"},
      {"root ::= \"a\"{2000}", "byte 12: expected fewer than 2000 repetitions"},
      {"root ::= \"a\"{99999999999999999999999}", "byte 12: expected fewer than 2000 repetitions"},
      {"root ::= \"a\"{1,10000000000000000000000}", "byte 15: expected a number of at most 18 digits"},
      {"root ::= (\"a\"{44}){46}{44}", "expected fewer than 2000 repetitions"},
      {"root ::= <nope>", "byte 9: expected one token"},
      {"root ::= <[7", "byte 9: expected one token"},
      {"root ::= !\"a\"", "byte 9: expected one token"},
      {"root ::= \"\xff\"", "byte 10: expected UTF-8"},
      {"root ::= \"\xc3\"", "byte 10: expected UTF-8"},
      {std::string("root ::= \"a\0\"", 13), "byte 11: expected text without zero bytes"},
      {"root ::= root \"a\"", "rule 'root'"},
      {"root ::= a\na ::= b \"x\"\nb ::= (\"y\"?) a", "left recursion"},
      {"a ::= b a \"x\" | \"y\"\nb ::= c\nc ::= \"\"\nroot ::= a",
       "rule 'a': expected rules that begin with something"},
      {"root ::= g root\ng ::= e\ne ::= \"\"", "rule 'root': expected some text that fits it, found none"},
  };
  for (const auto& [text, message] : wrong) {
    EXPECT_THAT(Judge(text), HasSubstr(message)) << text;
  }
}

TEST(Gbnf, BoundsWhatLibllamaWouldSpend) {
  const std::string deep = "root ::= " + Repeat("(", 20000) + "\"x\"" + Repeat(")", 20000);
  EXPECT_THAT(Judge(deep), HasSubstr("byte 265: expected groups nested at most 256 deep"));
  EXPECT_THAT(Judge(Chain(4200, "\"a\" {}")), HasSubstr("at most 4096 rules"));
  EXPECT_THAT(Judge("root ::= " + Repeat("\"x\"{0,1500} ", 3)), HasSubstr("at most 4096 rules"));
  EXPECT_THAT(Judge("root ::= \"" + Repeat("x", 1000) + "\"{1900}"), HasSubstr("at most 131072 characters"));
  EXPECT_THAT(Judge(Chain(3000, "{} \"x\"")), HasSubstr("ways to begin it"));
  // 4000 copies of a name of 100 kB.
  const std::string name(100'000, 'r');
  EXPECT_EQ(Judge("root ::= " + name + "\n" + name + " ::= (\"x\")"), "");
  EXPECT_THAT(Judge("root ::= " + name + "\n" + name + " ::= " + Repeat("(\"x\")", 4000)),
              HasSubstr("at most 1048576 bytes of names"));
  // 2^40 ways, of which libllama follows each.
  EXPECT_THAT(Judge(Chain(40, "{0} | {0}")), HasSubstr("ways to begin it"));
  EXPECT_THAT(Judge(Chain(40, "{0} \"a\" | {0} \"b\"")), HasSubstr("ways to begin it"));
}

// Whatever the check lets through libllama takes, and prints nothing.
TEST(Gbnf, LibllamaTakesWhatPasses) {
  const auto model = Model::Open(test::ModelPath("espalier-twin-f16.gguf"));
  ASSERT_TRUE(model.ok()) << model.status().message();
  const auto tokenizer = Tokenizer::Open(**model);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  std::vector<std::string> texts(std::begin(kGood), std::end(kGood));
  const char* const parts[] = {"root", " ::= ", "a", "b",   "\"x\"", "\"", "[a-z]", "[^",   "]",      "(",
                               ")",    "(",     ")", "*",   "+",     "?",  "|",     "{2}",  "{0,3}",  "{1,}",
                               "\n",   "\n",    ".", "# c", "<[7]>", "!",  "\\x41", "\r\n", "a ::= ", "b ::= \"y\""};
  std::mt19937 random(7);
  for (int i = 0; i < 20000; ++i) {
    std::string text = "root ::= ";
    for (auto n = random() % 12; n > 0; --n) {
      text += parts[random() % std::size(parts)];
      text += random() % 2 == 0 ? " " : "";
    }
    texts.push_back(text + (random() % 2 == 0 ? "\na ::= b? \"z\"\nb ::= [0-9]*" : ""));
  }
  int taken = 0;
  testing::internal::CaptureStderr();
  for (const std::string& text : texts) {
    SamplerOptions options;
    options.grammar = text;
    const auto sampler = Sampler::Create(**tokenizer, options);
    taken += sampler.ok() ? 1 : 0;
    if (!sampler.ok()) {
      EXPECT_THAT(sampler.status().message(), Not(HasSubstr("libllama"))) << text;
    }
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_GT(taken, 1000);
}

}  // namespace
}  // namespace espalier
