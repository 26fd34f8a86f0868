// Follows a grammar token by token. Not for use outside this layer.
//
// Takes the tokens that libllama's own grammars take, at a cost that is bounded: libllama keeps every way to read the
// text so far as a stack of its own, of which there can be 2^n after n characters, and asked about a token that does
// not fit it follows each of them to its end, however many come to the same. Here stacks share what is below their top,
// equal ones are one, and what a set of them becomes by a character is worked out once; and work is counted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/gbnf_rules.h"

namespace espalier {

// The end of a token that breaks off within a character.
struct PartialCharacter {
  uint32_t value = 0;  // bits so far
  int missing = 0;     // bytes; -1: what came was not UTF-8
};

// A few KiB, and with the text a few dozen bytes for each place that rules within rules are left at; up to about 20 MB
// where a grammar is followed in very many ways, and more while a token is looked at. Thread rule: one thread at a
// time.
class GbnfMatcher {
 public:
  // For one token: steps from stack to stack, eight stacks that are only looked at counting as one. With 8192 tokens to
  // choose from, llama.cpp's own grammars take 2000 of them; this many take about 20 ms.
  static constexpr int64_t kMaxWork = int64_t{1} << 18;

  // REQUIRES: rules that ReadGbnf returned
  explicit GbnfMatcher(const GbnfRules& rules, int64_t max_work = kMaxWork);
  GbnfMatcher(GbnfMatcher&&) = default;

  // The text so far fits the grammar.
  bool can_end() const;
  // Whether something that fits can go on with this token. Its piece: what it is rendered as, special or not. False
  // also once exhausted.
  bool Allows(int32_t token, std::string_view piece);
  // Goes on with it. False, without a change, where that is not allowed.
  bool Accept(int32_t token, std::string_view piece);

  // There were too many ways to read what came: the grammar is followed no further.
  bool exhausted() const { return exhausted_; }
  // To read what came so far.
  size_t ways() const { return set(now_).size(); }
  // Since the last token that was accepted.
  int64_t work() const { return work_; }
  int64_t max_work() const { return max_work_; }
  // Stacks, and what is known of sets of them: a few dozen bytes each.
  size_t kept() const { return stacks_.size() + in_sets_ + next_.size(); }

 private:
  // Elements as they are matched: a class of characters is one, its members are merged and sorted.
  struct Item {
    enum class Kind : uint8_t { kEnd, kRule, kCharacters, kToken } kind;
    bool negated = false;  // anything but
    uint32_t first = 0;    // rule, range or token
    uint32_t last = 0;     // range behind the last
  };
  struct Range {
    uint32_t low;
    uint32_t high;  // inclusive
  };
  // A place in a rule, and where it goes on after that rule.
  struct Stack {
    uint32_t item;
    uint32_t below;
  };
  struct HashKey {
    size_t operator()(uint64_t key) const;
    size_t operator()(const std::vector<uint32_t>& stacks) const;
  };
  struct Reading {
    uint32_t by_token = kNoWay;
    uint32_t by_text = kNoWay;
    PartialCharacter partial;
  };
  using Sets = std::unordered_map<std::vector<uint32_t>, uint32_t, HashKey>;

  static constexpr uint32_t kEmptyStack = 0;  // the grammar's end
  static constexpr uint32_t kNoWay = 0;       // the set without stacks

  void Compile(const GbnfRules& rules);
  void AddClass(std::span<const GbnfElement> members);
  void FindKinds();
  // Characters, or tokens, of one kind are in the same ranges.
  uint64_t KindOfCharacter(uint32_t character) const;
  uint64_t KindOfToken(uint32_t token) const;

  bool AtEnd(uint32_t item) const { return items_[item].kind == Item::Kind::kEnd; }
  const std::vector<uint32_t>& set(uint32_t number) const { return *sets_in_order_[number]; }
  // False where there is not so much left.
  bool Spend(size_t work);
  uint32_t Push(uint32_t item, uint32_t below);
  // The stack without its top, at what follows it.
  uint32_t Behind(uint32_t stack);
  // Puts what the rule at the top of the stack begins with on todo_.
  void OpenRule(uint32_t stack);
  // The set of what todo_ comes to, with characters or tokens on top.
  uint32_t CloseTodo();
  uint32_t NumberOfSet(std::vector<uint32_t> stacks);

  bool Contains(const Item& item, uint32_t low, uint32_t high) const;
  bool TakesCharacter(const Item& item, uint32_t character) const;
  bool TakesToken(const Item& item, uint32_t token) const;
  bool TakesPartial(const Item& item, const PartialCharacter& partial) const;
  template <typename Takes>
  uint32_t Next(uint32_t from, uint64_t kind, const Takes& takes);
  // Of the set those that go on with a character.
  uint32_t BeforeCharacter(uint32_t from);
  bool FitsPartial(uint32_t from, const PartialCharacter& partial);
  // How it could go on with the token; nothing where it cannot.
  std::optional<Reading> Read(int32_t token, std::string_view piece);
  // Forgets all that the present place does not need, where that is much.
  void Forget();

  std::vector<Item> items_;  // rule behind rule, each alternative with an end
  std::vector<Range> ranges_;
  std::vector<std::vector<uint32_t>> alternatives_;  // of each rule: their first items
  std::vector<uint32_t> bounds_;                     // where kinds of characters begin
  std::vector<uint32_t> tokens_;                     // that are named

  std::vector<Stack> stacks_;
  std::unordered_map<uint64_t, uint32_t, HashKey> stack_numbers_;
  Sets sets_;                                                // sorted
  std::vector<const std::vector<uint32_t>*> sets_in_order_;  // keys of sets_
  std::unordered_map<uint64_t, uint32_t, HashKey> next_;     // of a set, by a kind
  std::vector<uint32_t> seen_;                               // by stack: the round that saw it last
  std::vector<uint32_t> todo_;
  std::vector<uint32_t> characters_;  // of the token that is looked at
  uint32_t round_ = 0;
  size_t in_sets_ = 0;      // stacks, in all of them
  size_t forget_from_ = 0;  // so much is kept before it is worth while to forget
  uint32_t now_ = kNoWay;
  PartialCharacter partial_;
  const int64_t max_work_;
  int64_t work_ = 0;
  bool exhausted_ = false;
};

}  // namespace espalier
