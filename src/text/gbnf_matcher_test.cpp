#include "text/gbnf_matcher.h"

#include <gtest/gtest.h>
#include <llama.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "support/twin_tokenizer.h"
#include "text/gbnf.h"
#include "text/tokenizer.h"

namespace espalier {
namespace {

std::string Repeat(std::string_view part, int times) {
  std::string text;
  for (int i = 0; i < times; ++i) {
    text += part;
  }
  return text;
}

GbnfMatcher MatcherOf(std::string_view text, int64_t max_work = GbnfMatcher::kMaxWork) {
  const auto token_of = [](std::string_view token) {
    return token == "<[300]>" ? std::optional<uint32_t>(300) : std::nullopt;
  };
  const auto rules = ReadGbnf(text, token_of);
  EXPECT_TRUE(rules.ok()) << text << ": " << rules.status().message();
  return GbnfMatcher(rules.ok() ? *rules : GbnfRules{{{}}, {"root"}}, max_work);
}

// Whether the grammar takes the text, a character for a token. False also where it is exhausted.
bool Follow(GbnfMatcher& matcher, std::string_view text) {
  for (const char c : text) {
    if (!matcher.Accept(0, std::string_view(&c, 1))) {
      return false;
    }
  }
  return true;
}

bool Fits(std::string_view grammar, std::string_view text) {
  GbnfMatcher matcher = MatcherOf(grammar);
  return Follow(matcher, text) && matcher.can_end();
}

TEST(GbnfMatcher, TakesWhatTheGrammarSays) {
  EXPECT_TRUE(Fits(R"(root ::= "a" [0-9]+ ("," [^x\n]){2})", "a17,b,c"));
  EXPECT_FALSE(Fits(R"(root ::= "a" [0-9]+ ("," [^x\n]){2})", "a17,b,x"));
  EXPECT_FALSE(Fits(R"(root ::= "a" [0-9]+ ("," [^x\n]){2})", "a17,b"));
  EXPECT_TRUE(Fits("root ::= |", ""));
  EXPECT_TRUE(Fits(R"x(root ::= "(" root ")" root | "")x", "(()())()"));
  EXPECT_FALSE(Fits(R"x(root ::= "(" root ")" root | "")x", "(()"));
  EXPECT_TRUE(Fits(R"(root ::= "\x41\u00e9\U0001F600" [\\\]ä-ü-] .)", "A\u00e9\U0001F600\u00f6\u20ac"));
}

TEST(GbnfMatcher, TakesTokensByTheirNumber) {
  GbnfMatcher matcher = MatcherOf("root ::= \"a\" <[300]> !<[300]>");
  ASSERT_TRUE(matcher.Accept(5, "a"));
  EXPECT_FALSE(matcher.Allows(5, "x"));
  ASSERT_TRUE(matcher.Accept(300, "x"));
  EXPECT_FALSE(matcher.Accept(300, "x"));
  EXPECT_FALSE(matcher.can_end());
  ASSERT_TRUE(matcher.Accept(301, "abc"));
  EXPECT_TRUE(matcher.can_end());
}

TEST(GbnfMatcher, TakesHalfACharacterOnlyWhereAWholeOneMayFollow) {
  GbnfMatcher matcher = MatcherOf("root ::= [\u00e0-\u00ff] \"x\"");
  EXPECT_FALSE(matcher.Allows(0, "\xc2"));
  EXPECT_FALSE(matcher.Allows(0, "\xe2\x82"));
  EXPECT_FALSE(matcher.Allows(0, "\xa9"));
  ASSERT_TRUE(matcher.Accept(0, "\xc3"));
  EXPECT_FALSE(matcher.Allows(0, "x"));
  EXPECT_FALSE(matcher.Allows(0, "\x80"));
  ASSERT_TRUE(matcher.Accept(0, "\xa9x"));
  EXPECT_TRUE(matcher.can_end());
}

TEST(GbnfMatcher, RefusesWithoutAChange) {
  GbnfMatcher matcher = MatcherOf("root ::= \"abc\"");
  ASSERT_TRUE(matcher.Accept(0, "a"));
  EXPECT_FALSE(matcher.Accept(0, "bx"));
  EXPECT_FALSE(matcher.Accept(0, ""));
  EXPECT_FALSE(matcher.Accept(0, std::string_view("\0b", 2)));
  EXPECT_TRUE(matcher.Accept(0, "bc"));
}

constexpr char kJson[] = R"gbnf(
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
)gbnf";

// After llama.cpp's own.
const char* const kOrdinary[] = {
    kJson,
    R"gbnf(
root ::= (expr "=" ws term "\n")+
expr ::= term ([-+*/] term)*
term ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num ::= [0-9]+ ws
ws ::= [ \t\n]*
)gbnf",
    R"gbnf(
root ::= item+
item ::= "- " [^\r\n\x0b\x0c\x85\u2028\u2029]+ "\n"
)gbnf",
    R"gbnf(
root ::= "1. " move " " move "\n" ([1-9] [0-9]? ". " move " " move "\n")+
move ::= (pawn | nonpawn | castle) [+#]?
nonpawn ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
pawn ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
castle ::= "O-O" "-O"?
)gbnf",
    R"gbnf(
root ::= (declaration)*
declaration ::= type name "(" (type name)? ")" "{" statement* "}"
type ::= "int" ws | "float" ws | "char" ws
name ::= [a-zA-Z_] [a-zA-Z_0-9]*
statement ::= (type name ws "=" ws expr ";") | (name ws "=" ws expr ";") | (name ws "(" list? ")" ";") |
  ("return" ws expr ";") | ("while" "(" test ")" "{" statement* "}") |
  ("if" "(" test ")" "{" statement* "}" ("else" "{" statement* "}")?) | ("//" [^\n]* "\n") |
  ("/*" ([^*] | ("*" [^/]))* "*/")
test ::= expr ("<=" | "<" | "==" | "!=" | ">=" | ">") expr
expr ::= term (("+" | "-") term)*
term ::= factor (("*" | "/") factor)*
factor ::= name | [0-9]+ | "-" factor | name "(" list? ")" | "(" ws expr ws ")"
list ::= expr ("," ws expr)*
ws ::= ([ \t\n]+)
)gbnf",
    "root ::= ([\u3041-\u30ff\u4e00-\u9fff] | [ \\t\\n])+",
    "root ::= ([a-z]+ | \" \")+",
    "root ::= (\"\\\"\" [^\"]{0,500} \"\\\" \")*",
    "root ::= <[300]> [a-z]* !<[300]>",
};

// libllama's grammar, at the same place.
class Oracle {
 public:
  Oracle(const Tokenizer& tokenizer, const std::string& grammar)
      : sampler_(llama_sampler_init_grammar(static_cast<const llama_vocab*>(tokenizer.native_vocab()), grammar.c_str(),
                                            "root")) {}

  std::vector<int32_t> AllowedOf(const std::vector<int32_t>& tokens) {
    std::vector<llama_token_data> candidates;
    for (const int32_t token : tokens) {
      candidates.push_back({token, 1, 0});
    }
    llama_token_data_array array = {candidates.data(), candidates.size(), -1, false};
    llama_sampler_apply(sampler_.get(), &array);
    std::vector<int32_t> allowed;
    for (const llama_token_data& one : candidates) {
      if (!std::isinf(one.logit)) {
        allowed.push_back(one.id);
      }
    }
    return allowed;
  }

  // It allows some tokens that it then fails on: those whose text comes to a place for a token by its number.
  bool FailsOn(int32_t token) const {
    const SamplerPtr copy(llama_sampler_clone(sampler_.get()));
    try {
      llama_sampler_accept(copy.get(), token);
      return false;
    } catch (const std::exception&) {
      return true;
    }
  }

  void Accept(int32_t token) { llama_sampler_accept(sampler_.get(), token); }

 private:
  struct Free {
    void operator()(llama_sampler* sampler) const { llama_sampler_free(sampler); }
  };
  using SamplerPtr = std::unique_ptr<llama_sampler, Free>;

  SamplerPtr sampler_;
};

class GbnfVocabulary : public test::TwinTokenizerTest {
 protected:
  static void SetUpTestSuite() {
    TwinTokenizerTest::SetUpTestSuite();
    ASSERT_NE(tokenizer_, nullptr);
    for (int32_t token = 0; token < tokenizer_->n_vocab(); ++token) {
      all_.push_back(token);
      pieces_.push_back(tokenizer_->Piece(token, /*render_special=*/true));
    }
  }
  static void TearDownTestSuite() {
    TwinTokenizerTest::TearDownTestSuite();
    all_.clear();
    pieces_.clear();
  }

  static bool Accept(GbnfMatcher& matcher, int32_t token) {
    return matcher.Accept(token, pieces_[static_cast<size_t>(token)]);
  }

  static std::vector<int32_t> AllowedOf(GbnfMatcher& matcher, const std::vector<int32_t>& tokens) {
    std::vector<int32_t> allowed;
    for (const int32_t token : tokens) {
      if (tokenizer_->is_end_of_generation(token) ? matcher.can_end()
                                                  : matcher.Allows(token, pieces_[static_cast<size_t>(token)])) {
        allowed.push_back(token);
      }
    }
    return allowed;
  }

  // Both go the same random way, and agree about every token at each step.
  static void ExpectAgreement(const std::string& grammar, const std::vector<int32_t>& tokens, int steps,
                              std::mt19937& random) {
    GbnfMatcher matcher = MatcherOf(grammar);
    Oracle oracle(*tokenizer_, grammar);
    for (int step = 0; step < steps; ++step) {
      const std::vector<int32_t> allowed = AllowedOf(matcher, tokens);
      std::vector<int32_t> expected = oracle.AllowedOf(tokens);
      if (allowed.size() < expected.size()) {
        std::erase_if(expected, [&](int32_t token) {
          return !std::binary_search(allowed.begin(), allowed.end(), token) && oracle.FailsOn(token);
        });
      }
      ASSERT_EQ(allowed, expected) << grammar << " at token " << step;
      const int32_t token = allowed.empty() ? tokenizer_->eos() : allowed[random() % allowed.size()];
      if (tokenizer_->is_end_of_generation(token)) {
        return;
      }
      oracle.Accept(token);
      ASSERT_TRUE(Accept(matcher, token));
    }
  }

  static inline std::vector<int32_t> all_;
  static inline std::vector<std::string> pieces_;  // by token
};

TEST_F(GbnfVocabulary, AllowsTheTokensThatLibllamaAllows) {
  std::mt19937 random(3);
  for (const std::string grammar : kOrdinary) {
    ExpectAgreement(grammar, all_, 24, random);
  }
}

TEST_F(GbnfVocabulary, AllowsTheTokensThatLibllamaAllowsWhateverTheGrammar) {
  const char* const parts[] = {"root", "a",         "b",       "\"x\"",    "\"ab\"", "[a-d]",
                               "[^a]", "[^\u00e9]", "(",       ")",        "(",      ")",
                               "*",    "+",         "?",       "|",        "{2}",    "{0,3}",
                               "\"\"", ".",         "<[300]>", "!<[300]>", " ",      "[\u00e0-\u00ff\u20ac]"};
  std::mt19937 random(7);
  // Bytes, and short words: libllama's time grows with 2^n of what it is asked about.
  std::vector<int32_t> tokens;
  for (const int32_t token : all_) {
    const bool letters = pieces_[static_cast<size_t>(token)].find_first_not_of("abcdxy ") == std::string::npos;
    if (token < 310 || (letters && pieces_[static_cast<size_t>(token)].size() <= 3)) {
      tokens.push_back(token);
    }
  }
  int followed = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string text = "root ::= ";
    for (auto n = 1 + random() % 10; n > 0; --n) {
      text += std::string(parts[random() % std::size(parts)]) + " ";
    }
    text += "\na ::= b? \"y\"\nb ::= [a-c]*";
    if (CheckGbnf(text, [](std::string_view) { return true; }).ok()) {
      ++followed;
      ExpectAgreement(text, tokens, 4, random);
    }
    if (HasFatalFailure()) {
      return;
    }
  }
  EXPECT_GT(followed, 1000);
}

TEST_F(GbnfVocabulary, OrdinaryGrammarsAreFollowedWithLittleWork) {
  std::mt19937 random(5);
  for (const std::string grammar : kOrdinary) {
    GbnfMatcher matcher = MatcherOf(grammar);
    for (int step = 0; step < 100; ++step) {
      const std::vector<int32_t> allowed = AllowedOf(matcher, all_);
      ASSERT_LT(matcher.work(), GbnfMatcher::kMaxWork / 32) << grammar << " at token " << step;
      const int32_t token = allowed.empty() ? tokenizer_->eos() : allowed[random() % allowed.size()];
      if (tokenizer_->is_end_of_generation(token)) {
        break;
      }
      ASSERT_TRUE(Accept(matcher, token));
    }
  }
}

TEST_F(GbnfVocabulary, OneOfThousandsOfWordsCanBeChosen) {
  std::mt19937 random(5);
  std::string grammar = "root ::= \"x\"";
  for (int i = 0; i < 8000; ++i) {
    grammar += " | \"";
    for (int length = 0; length < 8; ++length) {
      grammar += static_cast<char>(random() % 2 == 0 ? 'a' + random() % 26 : 'A' + random() % 26);
    }
    grammar += "\"";
  }
  GbnfMatcher matcher = MatcherOf(grammar);
  while (!matcher.can_end()) {
    const std::vector<int32_t> allowed = AllowedOf(matcher, all_);
    ASSERT_FALSE(matcher.exhausted());
    ASSERT_FALSE(allowed.empty());
    ASSERT_TRUE(Accept(matcher, allowed.back()));
  }
}

// What libllama takes 2^n steps for, but can be read in few ways that differ.
TEST_F(GbnfVocabulary, AmbiguousGrammarsAreFollowedWhereFewWaysDiffer) {
  for (const std::string& grammar :
       {std::string("root ::= [a-z ]++++"), std::string("root ::= ((([a-z ]+)+)+)+"),
        std::string("root ::= (a | a | a | a)+\na ::= [a-z ]"), "root ::= " + Repeat("x ", 30) + "\nx ::= [a-z ]*",
        "root ::= (" + Repeat("x? ", 8) + ")+\nx ::= [a-z ]?",
        std::string("root ::= ([a-z ] | [a-z ][a-z ] | [a-z ][a-z ][a-z ])*")}) {
    GbnfMatcher matcher = MatcherOf(grammar);
    for (int step = 0; step < 50; ++step) {
      EXPECT_FALSE(matcher.Allows(0, Repeat("a", 200) + "1")) << grammar;
      ASSERT_TRUE(matcher.Accept(0, "some text ")) << grammar << " at token " << step;
      ASSERT_FALSE(matcher.exhausted());
      ASSERT_LE(matcher.ways(), 64u) << grammar << " at token " << step;
    }
  }
}

TEST(GbnfMatcher, StopsWhereThereAreTooManyWays) {
  const std::string many[] = {
      "root ::= [a-z]++++++++++++++++++++",
      "root ::= " + Repeat("(", 40) + "[a-z]" + Repeat(")+", 40),
      "root ::= [a-z] root \"b\" | [a-z] root \"c\" | \"d\"",
      "root ::= ([a-z]{0,200}){0,9} x\nx ::= [a-z] x \"1\" | [a-z] x \"2\" | \"3\"",
  };
  for (const std::string& grammar : many) {
    GbnfMatcher matcher = MatcherOf(grammar, 1 << 16);
    int length = 0;
    while (length < 1000 && matcher.Accept(0, "a")) {
      ++length;
    }
    EXPECT_TRUE(matcher.exhausted()) << grammar;
    EXPECT_LT(length, 100) << grammar;
    EXPECT_LE(matcher.work(), 1 << 16) << grammar;
    EXPECT_FALSE(matcher.Allows(0, "a"));
    EXPECT_FALSE(matcher.Accept(0, "a"));
  }
}

TEST(GbnfMatcher, ATokenCostsNoMoreThanItsBoundHoweverLongItIs) {
  GbnfMatcher matcher = MatcherOf("root ::= [a-z] root \"b\" | [a-z] root \"c\" | \"d\"", 1 << 16);
  EXPECT_FALSE(matcher.Accept(0, Repeat("a", 4096)));
  EXPECT_TRUE(matcher.exhausted());
  EXPECT_LE(matcher.work(), 1 << 16);
}

TEST(GbnfMatcher, LongTextsTakeNoMoreRoomThanTheirNesting) {
  GbnfMatcher flat = MatcherOf(kJson);
  ASSERT_TRUE(Follow(flat, "{\"a\":["));
  for (int i = 0; i < 20000; ++i) {
    ASSERT_TRUE(Follow(flat, "[1,\"x\"],")) << i;
    ASSERT_LT(flat.kept(), 100'000u) << i;
  }
  ASSERT_TRUE(Follow(flat, "0]}"));
  EXPECT_TRUE(flat.can_end());
  GbnfMatcher deep = MatcherOf("root ::= \"(\" root \")\" | \"\"");
  ASSERT_TRUE(Follow(deep, Repeat("(", 30000) + Repeat(")", 30000)));
  EXPECT_TRUE(deep.can_end());
  GbnfMatcher too_deep = MatcherOf("root ::= \"(\" root \")\" | \"\"");
  EXPECT_FALSE(Follow(too_deep, Repeat("(", 300'000)));
  EXPECT_TRUE(too_deep.exhausted());
}

}  // namespace
}  // namespace espalier
