// By what a text is recognised later: whether two texts overlap is asked when one of them is no longer there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace espalier {

// Tokens that have to follow each other alike before two texts count as overlapping there: quotations and boilerplate
// are shorter.
inline constexpr size_t kSketchRunTokens = 64;

struct TextSketch {
  std::string corpus;          // the text's name, for people
  std::string tokens_hash;     // MeasurementSet::tokens_hash
  std::vector<uint64_t> runs;  // hashes of the text's disjoint runs of kSketchRunTokens, sorted: 8 bytes for 64 tokens

  friend bool operator==(const TextSketch&, const TextSketch&) = default;
};

TextSketch SketchText(std::string corpus, std::string tokens_hash, std::span<const int32_t> tokens);

// How many of the sketch's runs occur in `tokens`, at any place. A stretch that both texts have is found for certain
// from 2 * kSketchRunTokens - 1 tokens on.
int64_t SharedRuns(const TextSketch& sketch, std::span<const int32_t> tokens);

}  // namespace espalier
