#include "text/gbnf_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "model/quote.h"
#include "text/gbnf_scanner.h"

namespace espalier {
namespace {

// Grammars that people write have a few dozen rules and nest ten deep; those of JSON schemas nest up to 130 deep.
constexpr int kMaxNesting = 256;
constexpr size_t kMaxRules = 4096;  // about 350 bytes each in libllama
constexpr size_t kMaxElements = size_t{1} << 17;
// libllama names every group and repetition after its rule: of a long name there can be thousands of copies.
constexpr size_t kMaxNameBytes = size_t{1} << 20;  // of all rules together
// libllama's own bounds on repetitions.
constexpr uint64_t kRepetitions = 2000;
constexpr uint64_t kNoMost = UINT64_MAX;
// libllama refuses numbers beyond 64 bits.
constexpr size_t kMostDigits = 18;

// What is read of a rule or group so far.
struct Sequence {
  uint32_t rule = 0;  // its named rule
  int depth = 0;      // groups around it
  std::vector<GbnfElement> elements;
  size_t item = 0;          // where the last item begins: what a repetition repeats
  uint64_t item_rules = 1;  // libllama's count of what the item stands for
};

class GbnfParser {
 public:
  GbnfParser(std::string_view text, const GbnfTokenOf& token_of) : in_(text), token_of_(token_of) {}

  Result<GbnfRules> Parse() {
    ESPALIER_RETURN_IF_ERROR(in_.CheckNoZero());
    in_.SkipSpace(true);
    while (!in_.at_end()) {
      ESPALIER_RETURN_IF_ERROR(ParseRule());
    }
    const auto root = numbers_.find("root");
    if (root == numbers_.end()) {
      return InvalidArgument("grammar: expected a rule named root, found none");
    }
    rules_.root = root->second;
    for (size_t i = 0; i < rules_.names.size(); ++i) {
      if (!defined_[i]) {
        return InvalidArgument(fmt::format("grammar: rule {} is used, but not defined", Quote(rules_.names[i])));
      }
    }
    return std::move(rules_);
  }

 private:
  // Fails where there are too many.
  Result<uint32_t> NewRule(const std::string& name) {
    if (rules_.rules.size() == kMaxRules) {
      return InvalidArgument(
          fmt::format("grammar: byte {}: expected at most {} rules, groups and repetitions (written out), found more",
                      in_.at, kMaxRules));
    }
    n_name_bytes_ += name.size();
    if (n_name_bytes_ > kMaxNameBytes) {
      return InvalidArgument(fmt::format(
          "grammar: byte {}: expected at most {} bytes of names of rules (groups and repetitions have their "
          "rule's), found more",
          in_.at, kMaxNameBytes));
    }
    rules_.rules.emplace_back();
    rules_.names.push_back(name);
    defined_.push_back(false);
    return static_cast<uint32_t>(rules_.rules.size() - 1);
  }

  Result<uint32_t> NumberOf(const std::string& name) {
    const auto found = numbers_.find(name);
    if (found != numbers_.end()) {
      return found->second;
    }
    ESPALIER_ASSIGN_OR_RETURN(const uint32_t number, NewRule(name));
    numbers_[name] = number;
    return number;
  }

  void Define(uint32_t number, std::vector<GbnfElement> elements) {
    rules_.rules[number] = std::move(elements);  // the last definition counts
    defined_[number] = true;
  }

  Status AddElements(size_t count) {
    n_elements_ += count;
    return n_elements_ <= kMaxElements
               ? Status::Ok()
               : InvalidArgument(fmt::format("grammar: byte {}: expected at most {} characters and references "
                                             "(repetitions written out), found more",
                                             in_.at, kMaxElements));
  }

  Status ParseRule() {
    const std::string name = in_.TakeName();
    if (name.empty()) {
      return in_.Wrong("the name of a rule");
    }
    in_.SkipSpace(false);
    ESPALIER_ASSIGN_OR_RETURN(const uint32_t number, NumberOf(name));
    if (in_.text.substr(in_.at, 3) != "::=") {
      return in_.Wrong("\"::=\"");
    }
    in_.at += 3;
    in_.SkipSpace(true);
    ESPALIER_RETURN_IF_ERROR(ParseAlternatives(number, number, 0));
    if (!in_.at_end() && in_.Now() != '\r' && in_.Now() != '\n') {
      return in_.Wrong("an item, \"|\" or the end of the rule");
    }
    in_.SkipSpace(true);
    return Status::Ok();
  }

  // What becomes rule `number`; `rule`: the named one it belongs to.
  Status ParseAlternatives(uint32_t number, uint32_t rule, int depth) {
    Sequence sequence;
    sequence.rule = rule;
    sequence.depth = depth;
    for (;;) {
      ESPALIER_RETURN_IF_ERROR(ParseItems(&sequence));
      if (in_.Now() != '|') {
        break;
      }
      ESPALIER_RETURN_IF_ERROR(AddElements(1));
      sequence.elements.push_back({GbnfKind::kOr});
      ++in_.at;
      in_.SkipSpace(true);
    }
    Define(number, std::move(sequence.elements));
    return Status::Ok();
  }

  Status ParseItems(Sequence* sequence) {
    sequence->item = sequence->elements.size();
    sequence->item_rules = 1;
    for (;;) {
      const char c = in_.Now();
      if (c == '*' || c == '+' || c == '?' || c == '{') {
        ESPALIER_RETURN_IF_ERROR(ParseRepetition(sequence));
        continue;
      }
      if (in_.at_end() || (!IsGbnfWord(c) && std::string_view("\"[<!(.").find(c) == std::string_view::npos)) {
        return Status::Ok();
      }
      sequence->item = sequence->elements.size();
      sequence->item_rules = 1;
      ESPALIER_RETURN_IF_ERROR(c == '"'               ? ParseLiteral(sequence)
                               : c == '['             ? ParseClass(sequence)
                               : c == '<' || c == '!' ? ParseToken(sequence)
                               : c == '('             ? ParseGroup(sequence)
                               : c == '.'             ? Take(sequence, {GbnfKind::kAnyCharacter}, 1)
                                                      : ParseReference(sequence));
      in_.SkipSpace(sequence->depth > 0);
    }
  }

  Status Take(Sequence* sequence, GbnfElement element, size_t bytes) {
    ESPALIER_RETURN_IF_ERROR(AddElements(1));
    sequence->elements.push_back(element);
    in_.at += bytes;
    return Status::Ok();
  }

  Status ParseReference(Sequence* sequence) {
    ESPALIER_ASSIGN_OR_RETURN(const uint32_t number, NumberOf(in_.TakeName()));
    return Take(sequence, {GbnfKind::kRule, number}, 0);
  }

  Status ParseLiteral(Sequence* sequence) {
    ++in_.at;
    while (in_.Now() != '"') {
      ESPALIER_ASSIGN_OR_RETURN(const uint32_t character, in_.TakeCharacter("the end of the string"));
      ESPALIER_RETURN_IF_ERROR(Take(sequence, {GbnfKind::kCharacter, character}, 0));
    }
    ++in_.at;
    return Status::Ok();
  }

  Status ParseClass(Sequence* sequence) {
    constexpr std::string_view kEnd = "\"]\"";
    const bool negated = in_.Now(1) == '^';
    in_.at += negated ? 2 : 1;
    GbnfKind kind = negated ? GbnfKind::kNotCharacter : GbnfKind::kCharacter;
    for (; in_.Now() != ']'; kind = GbnfKind::kMember) {
      ESPALIER_ASSIGN_OR_RETURN(const uint32_t first, in_.TakeCharacter(kEnd));
      ESPALIER_RETURN_IF_ERROR(Take(sequence, {kind, first}, 0));
      if (in_.Now() == '-' && in_.Now(1) != ']') {
        ++in_.at;
        ESPALIER_ASSIGN_OR_RETURN(const uint32_t last, in_.TakeCharacter(kEnd));
        ESPALIER_RETURN_IF_ERROR(Take(sequence, {GbnfKind::kUpTo, last}, 0));
      }
    }
    ++in_.at;
    return Status::Ok();
  }

  // "<name>" or "<[id]>", perhaps behind "!".
  Status ParseToken(Sequence* sequence) {
    const bool negated = in_.Now() == '!';
    const size_t begin = in_.at + (negated ? 1 : 0);
    const size_t end = in_.text.find('>', begin);
    const std::string_view token = in_.text.substr(begin, end == std::string_view::npos ? 0 : end + 1 - begin);
    const std::optional<uint32_t> id = token.empty() || token[0] != '<' ? std::nullopt : token_of_(token);
    if (!id) {
      return in_.Wrong("one token of the vocabulary, as <text> or <[id]>");
    }
    return Take(sequence, {negated ? GbnfKind::kNotToken : GbnfKind::kToken, *id}, begin + token.size() - in_.at);
  }

  Status ParseGroup(Sequence* sequence) {
    if (sequence->depth == kMaxNesting) {
      return InvalidArgument(
          fmt::format("grammar: byte {}: expected groups nested at most {} deep, found more", in_.at, kMaxNesting));
    }
    ++in_.at;
    in_.SkipSpace(true);
    const size_t before = rules_.rules.size();
    ESPALIER_ASSIGN_OR_RETURN(const uint32_t group, NewRule(rules_.names[sequence->rule]));
    ESPALIER_RETURN_IF_ERROR(ParseAlternatives(group, sequence->rule, sequence->depth + 1));
    sequence->item_rules = std::max<uint64_t>(1, rules_.rules.size() - before);
    if (in_.Now() != ')') {
      return in_.Wrong("an item, \"|\" or \")\"");
    }
    return Take(sequence, {GbnfKind::kRule, group}, 1);
  }

  // After "{", with its "}".
  Status ParseBounds(bool newlines, uint64_t* least, uint64_t* most) {
    const auto first = in_.TakeNumber(kRepetitions + 1);
    if (!first) {
      return in_.Wrong("a number of repetitions");
    }
    *least = *most = *first;
    in_.SkipSpace(newlines);
    if (in_.Now() == ',') {
      ++in_.at;
      in_.SkipSpace(newlines);
      const size_t begin = in_.at;
      *most = in_.TakeNumber(kRepetitions + 1).value_or(kNoMost);
      if (in_.at - begin > kMostDigits) {
        in_.at = begin;
        return in_.Wrong(fmt::format("a number of at most {} digits", kMostDigits));
      }
      *most = *most > kRepetitions ? kNoMost : *most;  // as libllama reads it
      in_.SkipSpace(newlines);
    }
    if (in_.Now() != '}') {
      return in_.Wrong("\"}\"");
    }
    ++in_.at;
    in_.SkipSpace(newlines);
    return Status::Ok();
  }

  Status ParseRepetition(Sequence* sequence) {
    const size_t begin = in_.at;
    const char kind = in_.Now();
    const bool newlines = sequence->depth > 0;
    uint64_t least = kind == '+' ? 1 : 0;
    uint64_t most = kind == '?' ? 1 : kNoMost;
    ++in_.at;
    in_.SkipSpace(newlines);
    if (kind == '{') {
      ESPALIER_RETURN_IF_ERROR(ParseBounds(newlines, &least, &most));
    }
    const size_t end = std::exchange(in_.at, begin);  // for messages
    if (sequence->item == sequence->elements.size()) {
      return in_.Wrong("an item to repeat before it");
    }
    const uint64_t times = most != kNoMost && most > 0 ? most : std::max<uint64_t>(least, 1);
    if (least > most || times * sequence->item_rules >= kRepetitions) {
      return in_.Wrong(
          fmt::format("fewer than {} repetitions (what is repeated counts with its own), from the lower bound "
                      "to the higher",
                      kRepetitions));
    }
    ESPALIER_RETURN_IF_ERROR(WriteOut(sequence, least, most));
    sequence->item_rules *= times;
    in_.at = end;
    return Status::Ok();
  }

  // As libllama: the item `least` times, then a rule for each further time, or one that goes on for ever.
  Status WriteOut(Sequence* sequence, uint64_t least, uint64_t most) {
    std::vector<GbnfElement>& elements = sequence->elements;
    const std::vector<GbnfElement> item(elements.begin() + static_cast<ptrdiff_t>(sequence->item), elements.end());
    const uint64_t further = most == kNoMost ? 1 : most - least;
    ESPALIER_RETURN_IF_ERROR(AddElements(least * item.size() + further * (item.size() + 2)));
    if (least == 0) {
      elements.resize(sequence->item);
    }
    for (uint64_t i = 1; i < least; ++i) {
      elements.insert(elements.end(), item.begin(), item.end());
    }
    uint32_t last = 0;
    for (uint64_t i = 0; i < further; ++i) {
      ESPALIER_ASSIGN_OR_RETURN(const uint32_t number, NewRule(rules_.names[sequence->rule]));
      std::vector<GbnfElement> more = item;
      if (i > 0 || most == kNoMost) {
        more.push_back({GbnfKind::kRule, most == kNoMost ? number : last});
      }
      more.push_back({GbnfKind::kOr});
      Define(number, std::move(more));
      last = number;
    }
    if (further > 0) {
      elements.push_back({GbnfKind::kRule, last});
    }
    return Status::Ok();
  }

  GbnfScanner in_;
  const GbnfTokenOf& token_of_;
  GbnfRules rules_;
  std::vector<bool> defined_;
  std::map<std::string, uint32_t> numbers_;  // of the named rules
  size_t n_elements_ = 0;
  size_t n_name_bytes_ = 0;
};

}  // namespace

Result<GbnfRules> ParseGbnf(std::string_view text, const GbnfTokenOf& token_of) {
  return GbnfParser(text, token_of).Parse();
}

}  // namespace espalier
