#include "text/gbnf_matcher.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <limits>
#include <utility>

#include "base/hash.h"

namespace espalier {
namespace {

constexpr uint32_t kHighest = std::numeric_limits<uint32_t>::max();
constexpr uint64_t kTokenKinds = uint64_t{1} << 31;  // kinds from here on are of tokens
// Nested rules that are open at once, in all ways to read the text together: 64 Ki are some MB.
constexpr size_t kMaxStacks = size_t{1} << 16;
constexpr size_t kLooksOfAStep = 8;
constexpr size_t kForgetFrom = size_t{1} << 14;

// What libllama makes of the bytes of a token, of which some may belong to a character that an earlier one began.
// Broken UTF-8 is no character at all.
PartialCharacter DecodePiece(std::string_view piece, PartialCharacter partial, std::vector<uint32_t>* characters) {
  constexpr int kBytes[] = {1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 2, 2, 3, 4};  // by the first four bits
  constexpr PartialCharacter kBroken = {0, -1};
  characters->clear();
  piece = piece.substr(0, piece.find('\0'));
  size_t at = 0;
  const auto go_on = [&] {
    for (; at < piece.size() && partial.missing > 0; ++at, --partial.missing) {
      partial.value = (partial.value << 6) + (static_cast<unsigned char>(piece[at]) & 0x3F);
    }
    if (partial.missing == 0) {
      characters->push_back(partial.value);
    }
  };
  if (partial.missing > 0) {
    for (size_t i = 0; i < std::min(piece.size(), static_cast<size_t>(partial.missing)); ++i) {
      if ((static_cast<unsigned char>(piece[i]) & 0xC0) != 0x80) {
        return kBroken;
      }
    }
    go_on();
  }
  while (at < piece.size()) {
    const auto first = static_cast<unsigned char>(piece[at]);
    partial.missing = kBytes[first >> 4] - 1;
    if (partial.missing < 0) {
      characters->clear();
      return kBroken;
    }
    partial.value = first & ((0x80u >> partial.missing) - 1);
    ++at;
    go_on();
  }
  return partial;
}

uint64_t Mixed(uint64_t key) {
  key = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9u;
  key = (key ^ (key >> 27)) * 0x94D049BB133111EBu;
  return key ^ (key >> 31);
}

}  // namespace

size_t GbnfMatcher::HashKey::operator()(uint64_t key) const { return Mixed(key); }

size_t GbnfMatcher::HashKey::operator()(const std::vector<uint32_t>& stacks) const {
  return Hash64(std::as_bytes(std::span(stacks)));
}

GbnfMatcher::GbnfMatcher(const GbnfRules& rules, int64_t max_work) : max_work_(max_work) {
  Compile(rules);
  FindKinds();
  stacks_ = {{0, 0}};
  seen_ = {0};
  NumberOfSet({});
  for (const uint32_t item : alternatives_[rules.root]) {
    todo_.push_back(AtEnd(item) ? kEmptyStack : Push(item, kEmptyStack));
  }
  now_ = CloseTodo();
  Forget();
  work_ = 0;
}

void GbnfMatcher::Compile(const GbnfRules& rules) {
  for (const std::vector<GbnfElement>& rule : rules.rules) {
    alternatives_.push_back({static_cast<uint32_t>(items_.size())});
    for (size_t i = 0; i < rule.size();) {
      size_t end = i + 1;
      switch (rule[i].kind) {
        case GbnfKind::kOr:
          items_.push_back({Item::Kind::kEnd});
          alternatives_.back().push_back(static_cast<uint32_t>(items_.size()));
          break;
        case GbnfKind::kRule:
          items_.push_back({Item::Kind::kRule, false, rule[i].value});
          break;
        case GbnfKind::kToken:
        case GbnfKind::kNotToken:
          items_.push_back({Item::Kind::kToken, rule[i].kind == GbnfKind::kNotToken, rule[i].value});
          tokens_.push_back(rule[i].value);
          break;
        default:
          while (end < rule.size() && (rule[end].kind == GbnfKind::kMember || rule[end].kind == GbnfKind::kUpTo)) {
            ++end;
          }
          AddClass(std::span(rule).subspan(i, end - i));
      }
      i = end;
    }
    items_.push_back({Item::Kind::kEnd});
  }
}

void GbnfMatcher::AddClass(std::span<const GbnfElement> members) {
  std::vector<Range> ranges;
  for (const GbnfElement& member : members) {
    if (member.kind == GbnfKind::kUpTo) {
      ranges.back().high = member.value;
    } else if (member.kind == GbnfKind::kAnyCharacter) {
      ranges.push_back({0, kHighest});
    } else {
      ranges.push_back({member.value, member.value});
    }
  }
  std::erase_if(ranges, [](const Range& range) { return range.high < range.low; });
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.low < b.low; });
  Item item = {Item::Kind::kCharacters, members[0].kind == GbnfKind::kNotCharacter};
  item.first = static_cast<uint32_t>(ranges_.size());
  for (const Range& range : ranges) {
    if (ranges_.size() > item.first && range.low <= ranges_.back().high) {
      ranges_.back().high = std::max(ranges_.back().high, range.high);
    } else {
      ranges_.push_back(range);
    }
  }
  item.last = static_cast<uint32_t>(ranges_.size());
  items_.push_back(item);
}

void GbnfMatcher::FindKinds() {
  for (const Range& range : ranges_) {
    bounds_.push_back(range.low);
    if (range.high != kHighest) {
      bounds_.push_back(range.high + 1);
    }
  }
  for (std::vector<uint32_t>* sorted : {&bounds_, &tokens_}) {
    std::sort(sorted->begin(), sorted->end());
    sorted->erase(std::unique(sorted->begin(), sorted->end()), sorted->end());
  }
}

uint64_t GbnfMatcher::KindOfCharacter(uint32_t character) const {
  return static_cast<uint64_t>(std::upper_bound(bounds_.begin(), bounds_.end(), character) - bounds_.begin());
}

uint64_t GbnfMatcher::KindOfToken(uint32_t token) const {
  const auto found = std::lower_bound(tokens_.begin(), tokens_.end(), token);
  const bool named = found != tokens_.end() && *found == token;
  return kTokenKinds + (named ? static_cast<uint64_t>(found - tokens_.begin()) + 1 : 0);
}

bool GbnfMatcher::Spend(size_t work) {
  exhausted_ = exhausted_ || static_cast<int64_t>(work) > max_work_ - work_;
  work_ += exhausted_ ? 0 : static_cast<int64_t>(work);
  return !exhausted_;
}

uint32_t GbnfMatcher::Push(uint32_t item, uint32_t below) {
  const auto [found, added] =
      stack_numbers_.try_emplace(uint64_t{below} << 32 | item, static_cast<uint32_t>(stacks_.size()));
  if (added) {
    stacks_.push_back({item, below});
    seen_.push_back(0);
  }
  return found->second;
}

uint32_t GbnfMatcher::Behind(uint32_t stack) {
  const auto [item, below] = stacks_[stack];
  // What a rule ends with is replaced by what follows the rule: going on for ever takes no room.
  return AtEnd(item + 1) ? below : Push(item + 1, below);
}

void GbnfMatcher::OpenRule(uint32_t stack) {
  const uint32_t behind = Behind(stack);
  const std::vector<uint32_t>& alternatives = alternatives_[items_[stacks_[stack].item].first];
  for (size_t i = 0; i < alternatives.size() && Spend(1); ++i) {
    const uint32_t item = alternatives[i];
    todo_.push_back(AtEnd(item) ? behind : Push(item, behind));
  }
}

uint32_t GbnfMatcher::CloseTodo() {
  std::vector<uint32_t> closed;
  ++round_;
  while (!todo_.empty() && Spend(1)) {
    const uint32_t stack = todo_.back();
    todo_.pop_back();
    if (std::exchange(seen_[stack], round_) == round_) {
      continue;
    }
    if (stack != kEmptyStack && items_[stacks_[stack].item].kind == Item::Kind::kRule) {
      OpenRule(stack);
    } else {
      closed.push_back(stack);
    }
  }
  todo_.clear();
  std::sort(closed.begin(), closed.end());
  return NumberOfSet(std::move(closed));
}

uint32_t GbnfMatcher::NumberOfSet(std::vector<uint32_t> stacks) {
  const auto [found, added] = sets_.try_emplace(std::move(stacks), static_cast<uint32_t>(sets_in_order_.size()));
  if (added) {
    sets_in_order_.push_back(&found->first);
    in_sets_ += found->first.size();
  }
  return found->second;
}

bool GbnfMatcher::Contains(const Item& item, uint32_t low, uint32_t high) const {
  const auto begin = ranges_.begin() + item.first;
  const auto end = ranges_.begin() + item.last;
  const auto found =
      std::lower_bound(begin, end, low, [](const Range& range, uint32_t value) { return range.high < value; });
  return found != end && found->low <= high;
}

bool GbnfMatcher::TakesCharacter(const Item& item, uint32_t character) const {
  return item.kind == Item::Kind::kCharacters && Contains(item, character, character) != item.negated;
}

bool GbnfMatcher::TakesToken(const Item& item, uint32_t token) const {
  return item.kind == Item::Kind::kToken && (item.first == token) != item.negated;
}

// As libllama: one of the characters that it may become is enough, and for "[^...]" none of them may be excluded.
bool GbnfMatcher::TakesPartial(const Item& item, const PartialCharacter& partial) const {
  if (item.kind != Item::Kind::kCharacters) {
    return false;
  }
  const int bits = partial.missing * 6;
  uint32_t low = partial.value << bits;
  const uint32_t high = low | ((1u << bits) - 1);
  if (low == 0 && partial.missing > 1) {
    low = partial.missing == 2 ? 1u << 11 : 1u << 16;  // shorter ones have fewer bytes
  }
  return Contains(item, low, high) != item.negated;
}

template <typename Takes>
uint32_t GbnfMatcher::Next(uint32_t from, uint64_t kind, const Takes& takes) {
  const uint64_t key = uint64_t{from} << 32 | kind;
  const auto known = next_.find(key);
  if (known != next_.end()) {
    return known->second;
  }
  if (!Spend(1 + set(from).size() / kLooksOfAStep)) {
    return kNoWay;
  }
  for (const uint32_t stack : set(from)) {
    if (stack != kEmptyStack && takes(items_[stacks_[stack].item])) {
      todo_.push_back(Behind(stack));
    }
  }
  return next_[key] = CloseTodo();
}

uint32_t GbnfMatcher::BeforeCharacter(uint32_t from) {
  std::vector<uint32_t> kept;
  std::copy_if(set(from).begin(), set(from).end(), std::back_inserter(kept), [this](uint32_t stack) {
    return stack != kEmptyStack && items_[stacks_[stack].item].kind == Item::Kind::kCharacters;
  });
  return NumberOfSet(std::move(kept));
}

bool GbnfMatcher::FitsPartial(uint32_t from, const PartialCharacter& partial) {
  // Two bytes for what has seven bits are no UTF-8.
  const bool possible = partial.missing > 0 && !(partial.missing == 1 && partial.value < 2);
  if (!possible || !Spend(1 + set(from).size() / kLooksOfAStep)) {
    return false;
  }
  return std::any_of(set(from).begin(), set(from).end(), [&](uint32_t stack) {
    return stack != kEmptyStack && TakesPartial(items_[stacks_[stack].item], partial);
  });
}

std::optional<GbnfMatcher::Reading> GbnfMatcher::Read(int32_t token, std::string_view piece) {
  if (exhausted_ || piece.empty() || piece[0] == '\0') {
    return std::nullopt;
  }
  Reading reading;
  reading.partial = DecodePiece(piece, partial_, &characters_);
  const auto id = static_cast<uint32_t>(token);
  if (!tokens_.empty()) {
    reading.by_token = Next(now_, KindOfToken(id), [&](const Item& item) { return TakesToken(item, id); });
  }
  reading.by_text = now_;
  for (const uint32_t character : characters_) {
    reading.by_text = Next(reading.by_text, KindOfCharacter(character),
                           [&](const Item& item) { return TakesCharacter(item, character); });
    if (reading.by_text == kNoWay) {
      break;
    }
  }
  const bool fits_text =
      reading.by_text != kNoWay && (reading.partial.missing == 0 || FitsPartial(reading.by_text, reading.partial));
  // As libllama: by its number alone no token is allowed that is part of one character.
  const bool fits_token = reading.by_token != kNoWay && !characters_.empty();
  return !exhausted_ && (fits_text || fits_token) ? std::optional(reading) : std::nullopt;
}

bool GbnfMatcher::can_end() const { return !set(now_).empty() && set(now_).front() == kEmptyStack; }

bool GbnfMatcher::Allows(int32_t token, std::string_view piece) { return Read(token, piece).has_value(); }

bool GbnfMatcher::Accept(int32_t token, std::string_view piece) {
  const auto reading = Read(token, piece);
  if (!reading) {
    return false;
  }
  now_ = characters_.empty() ? BeforeCharacter(reading->by_text) : reading->by_text;
  if (reading->by_token != kNoWay) {
    std::vector<uint32_t> both;
    std::set_union(set(reading->by_token).begin(), set(reading->by_token).end(), set(now_).begin(), set(now_).end(),
                   std::back_inserter(both));
    now_ = NumberOfSet(std::move(both));
  }
  partial_ = reading->partial;
  Forget();
  work_ = 0;
  return !exhausted_;
}

void GbnfMatcher::Forget() {
  if (kept() < forget_from_) {
    return;
  }
  std::vector<uint32_t> now = set(now_);
  std::vector<uint32_t> numbers(stacks_.size(), 0);  // 0: forgotten
  numbers[kEmptyStack] = 1;
  for (uint32_t stack : now) {
    for (; numbers[stack] == 0; stack = stacks_[stack].below) {
      numbers[stack] = 1;
    }
  }
  const std::vector<Stack> old = std::exchange(stacks_, {{0, 0}});
  stack_numbers_ = {};
  seen_ = {0};
  round_ = 0;
  numbers[kEmptyStack] = kEmptyStack;
  for (size_t stack = 1; stack < old.size(); ++stack) {
    if (numbers[stack] != 0) {  // what is below was made before it
      numbers[stack] = Push(old[stack].item, numbers[old[stack].below]);
    }
  }
  for (uint32_t& stack : now) {
    stack = numbers[stack];
  }
  next_ = {};
  sets_in_order_ = {};
  sets_ = {};
  in_sets_ = 0;
  NumberOfSet({});
  now_ = NumberOfSet(std::move(now));
  exhausted_ = exhausted_ || stacks_.size() > kMaxStacks;
  forget_from_ = kForgetFrom + 2 * (stacks_.size() + in_sets_);
}

}  // namespace espalier
