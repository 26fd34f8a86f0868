#include "text/gbnf.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "model/quote.h"

namespace espalier {
namespace {

// Each way is a stack of its own, and libllama, which has to take what is taken here, looks through all of them for
// each.
constexpr uint64_t kMaxWays = 8192;
constexpr uint64_t kMaxStackedRules = uint64_t{1} << 20;  // in all of these stacks together
constexpr uint64_t kSaturated = uint64_t{1} << 32;

// The beginning of an alternative: its references up to the first character.
struct Beginning {
  std::vector<int32_t> rules;
  bool has_text = false;     // a character follows
  bool reaches_end = false;  // no character in it
};

using Beginnings = std::vector<std::vector<Beginning>>;  // by rule

Beginnings BeginningsOf(const GbnfRules& grammar) {
  Beginnings all;
  for (const std::vector<GbnfElement>& rule : grammar.rules) {
    std::vector<Beginning> alternatives(1);
    for (const GbnfElement& element : rule) {
      Beginning& now = alternatives.back();
      if (element.kind == GbnfKind::kOr) {
        alternatives.emplace_back();
      } else if (element.kind != GbnfKind::kRule) {
        now.has_text = true;
      } else if (!now.has_text) {
        now.rules.push_back(static_cast<int32_t>(element.value));
      }
    }
    for (Beginning& one : alternatives) {
      one.reaches_end = !one.has_text;
    }
    all.push_back(std::move(alternatives));
  }
  return all;
}

// Rules that the empty text fits.
std::vector<bool> EmptyRules(const Beginnings& grammar) {
  struct Alternative {
    int32_t rule;
    size_t unknown;  // references in it that are not known to be empty
  };
  std::vector<Alternative> alternatives;
  std::vector<std::vector<size_t>> users(grammar.size());
  std::vector<bool> empty(grammar.size(), false);
  std::vector<int32_t> found;
  const auto take = [&](int32_t rule) {
    if (!empty[static_cast<size_t>(rule)]) {
      empty[static_cast<size_t>(rule)] = true;
      found.push_back(rule);
    }
  };
  for (size_t rule = 0; rule < grammar.size(); ++rule) {
    for (const Beginning& one : grammar[rule]) {
      if (!one.reaches_end) {
        continue;
      }
      for (const int32_t used : one.rules) {
        users[static_cast<size_t>(used)].push_back(alternatives.size());
      }
      alternatives.push_back({static_cast<int32_t>(rule), one.rules.size()});
      if (one.rules.empty()) {
        take(static_cast<int32_t>(rule));
      }
    }
  }
  while (!found.empty()) {
    const int32_t rule = found.back();
    found.pop_back();
    for (const size_t user : users[static_cast<size_t>(rule)]) {
      if (--alternatives[user].unknown == 0) {
        take(alternatives[user].rule);
      }
    }
  }
  return empty;
}

// Rules that libllama's own test for left recursion knows to be empty: those that say so themselves.
std::vector<bool> PlainlyEmptyRules(const Beginnings& grammar) {
  std::vector<bool> empty;
  for (const std::vector<Beginning>& rule : grammar) {
    empty.push_back(std::any_of(rule.begin(), rule.end(),
                                [](const Beginning& one) { return one.reaches_end && one.rules.empty(); }));
  }
  return empty;
}

// What stands at the beginning of a rule, if the rules in `empty` may be passed over.
struct Graph {
  struct Edge {
    int32_t to;
    bool last;  // nothing follows it in its alternative: libllama's stack does not grow
  };
  std::vector<std::vector<Edge>> edges;  // by rule
  std::vector<uint64_t> ends;            // of each rule: alternatives that come to a character or to their end
  std::vector<bool> has_text;            // one of them to a character
};

Graph GraphOf(const Beginnings& grammar, const std::vector<bool>& empty) {
  Graph graph;
  for (const std::vector<Beginning>& rule : grammar) {
    std::vector<Graph::Edge>& edges = graph.edges.emplace_back();
    uint64_t ends = 0;
    bool has_text = false;
    for (const Beginning& one : rule) {
      size_t i = 0;
      for (bool more = true; more && i < one.rules.size(); ++i) {
        edges.push_back({one.rules[i], one.reaches_end && i + 1 == one.rules.size()});
        more = empty[static_cast<size_t>(one.rules[i])];
      }
      const bool through = one.rules.empty() || (i == one.rules.size() && empty[static_cast<size_t>(one.rules.back())]);
      ends += through ? 1 : 0;
      has_text = has_text || (through && one.has_text);
    }
    graph.ends.push_back(ends);
    graph.has_text.push_back(has_text);
  }
  return graph;
}

// Tarjan's components of rules that begin with each other, and what it takes to follow each. Recursion is as deep as
// there are rules at most, as in libllama.
class Follower {
 public:
  // `may_loop`: a rule may come back to itself where nothing follows, which libllama notices as it goes.
  Follower(const GbnfRules& grammar, const Graph& graph, bool may_loop)
      : grammar_(grammar), graph_(graph), may_loop_(may_loop), nodes_(graph.edges.size()) {}

  Status CheckAll() {
    for (size_t rule = 0; rule < nodes_.size(); ++rule) {
      if (nodes_[rule].index == 0 && found_.ok()) {
        Visit(rule);
      }
    }
    return found_;
  }

 private:
  struct Node {
    int index = 0;  // 0: not visited
    int low = 0;
    bool open = false;
    uint64_t ways = 0;   // to begin the rule; of its component
    uint64_t depth = 0;  // of libllama's stack then
  };

  void Visit(size_t rule) {
    nodes_[rule].index = nodes_[rule].low = ++count_;
    nodes_[rule].open = true;
    open_.push_back(rule);
    for (const Graph::Edge& edge : graph_.edges[rule]) {
      const auto to = static_cast<size_t>(edge.to);
      if (nodes_[to].index == 0) {
        Visit(to);
        nodes_[rule].low = std::min(nodes_[rule].low, nodes_[to].low);
      } else if (nodes_[to].open) {
        nodes_[rule].low = std::min(nodes_[rule].low, nodes_[to].index);
      }
      if (!found_.ok()) {
        return;
      }
    }
    if (nodes_[rule].low == nodes_[rule].index) {
      Judge(rule);
    }
  }

  // The component that ends the list of open rules, from `first` on; all that it leads to was judged.
  void Judge(size_t first) {
    const auto begin = std::find(open_.begin(), open_.end(), first);
    uint64_t ways = 1;
    uint64_t depth = 0;
    for (auto rule = begin; rule != open_.end(); ++rule) {
      ways += graph_.ends[*rule];
      for (const Graph::Edge& edge : graph_.edges[*rule]) {
        const Node& to = nodes_[static_cast<size_t>(edge.to)];
        if (to.open && !(may_loop_ && edge.last)) {
          found_ = InvalidArgument(fmt::format(
              "grammar: rule {}: expected rules that begin with something else, found one that can begin with itself "
              "(left recursion)",
              Quote(grammar_.names[*rule])));
          return;
        }
        ways = std::min(kSaturated, ways + (to.open ? 1 : to.ways));
        depth = std::max(depth, to.depth + (edge.last ? 0 : 1));
      }
    }
    if (ways > kMaxWays || ways * (depth + 1) > kMaxStackedRules) {
      found_ = InvalidArgument(fmt::format(
          "grammar: rule {}: expected at most {} ways to begin it and {} rules in them together, found more",
          Quote(grammar_.names[first]), kMaxWays, kMaxStackedRules));
      return;
    }
    for (auto rule = begin; rule != open_.end(); ++rule) {
      nodes_[*rule].open = false;
      nodes_[*rule].ways = ways;
      nodes_[*rule].depth = depth;
    }
    open_.erase(begin, open_.end());
  }

  const GbnfRules& grammar_;
  const Graph& graph_;
  const bool may_loop_;
  std::vector<Node> nodes_;
  std::vector<size_t> open_;
  int count_ = 0;
  Status found_;  // what is wrong
};

// libllama aborts where a rule neither can be empty nor comes to a character.
Status CheckEachBegins(const GbnfRules& grammar, const Graph& graph, const std::vector<bool>& empty) {
  std::vector<std::vector<size_t>> users(graph.edges.size());
  std::vector<bool> begins(graph.edges.size(), false);
  std::vector<size_t> found;
  for (size_t rule = 0; rule < graph.edges.size(); ++rule) {
    for (const Graph::Edge& edge : graph.edges[rule]) {
      users[static_cast<size_t>(edge.to)].push_back(rule);
    }
    if (graph.has_text[rule]) {
      begins[rule] = true;
      found.push_back(rule);
    }
  }
  while (!found.empty()) {
    const size_t rule = found.back();
    found.pop_back();
    for (const size_t user : users[rule]) {
      if (!begins[user]) {
        begins[user] = true;
        found.push_back(user);
      }
    }
  }
  for (size_t rule = 0; rule < begins.size(); ++rule) {
    if (!begins[rule] && !empty[rule]) {
      return InvalidArgument(
          fmt::format("grammar: rule {}: expected some text that fits it, found none", Quote(grammar.names[rule])));
    }
  }
  return Status::Ok();
}

}  // namespace

Result<GbnfRules> ReadGbnf(std::string_view text, const GbnfTokenOf& token_of) {
  ESPALIER_ASSIGN_OR_RETURN(GbnfRules grammar, ParseGbnf(text, token_of));
  const Beginnings beginnings = BeginningsOf(grammar);
  // libllama's own test first: it follows every way there is, and passes over fewer rules than can be empty.
  const Graph plain = GraphOf(beginnings, PlainlyEmptyRules(beginnings));
  ESPALIER_RETURN_IF_ERROR(Follower(grammar, plain, /*may_loop=*/false).CheckAll());
  const std::vector<bool> empty = EmptyRules(beginnings);
  const Graph full = GraphOf(beginnings, empty);
  ESPALIER_RETURN_IF_ERROR(Follower(grammar, full, /*may_loop=*/true).CheckAll());
  ESPALIER_RETURN_IF_ERROR(CheckEachBegins(grammar, full, empty));
  return grammar;
}

Status CheckGbnf(std::string_view text, const GbnfIsToken& is_token) {
  const auto token_of = [&](std::string_view token) {
    return is_token(token) ? std::optional<uint32_t>(0) : std::nullopt;
  };
  return ReadGbnf(text, token_of).status();
}

}  // namespace espalier
