#include "profile/text_sketch.h"

#include <algorithm>
#include <utility>

#include "base/hash.h"

namespace espalier {
namespace {

uint64_t HashOfRun(std::span<const int32_t> tokens, size_t at) {
  return Hash64(std::as_bytes(tokens.subspan(at, kSketchRunTokens)));
}

}  // namespace

TextSketch SketchText(std::string corpus, std::string tokens_hash, std::span<const int32_t> tokens) {
  TextSketch sketch{std::move(corpus), std::move(tokens_hash), {}};
  for (size_t at = 0; at + kSketchRunTokens <= tokens.size(); at += kSketchRunTokens) {
    sketch.runs.push_back(HashOfRun(tokens, at));
  }
  std::sort(sketch.runs.begin(), sketch.runs.end());
  return sketch;
}

int64_t SharedRuns(const TextSketch& sketch, std::span<const int32_t> tokens) {
  std::vector<uint64_t> found;
  for (size_t at = 0; at + kSketchRunTokens <= tokens.size(); ++at) {
    const uint64_t hash = HashOfRun(tokens, at);
    if (std::binary_search(sketch.runs.begin(), sketch.runs.end(), hash)) {
      found.push_back(hash);
    }
  }
  std::sort(found.begin(), found.end());
  const auto last = std::unique(found.begin(), found.end());
  return std::count_if(sketch.runs.begin(), sketch.runs.end(),
                       [&](uint64_t run) { return std::binary_search(found.begin(), last, run); });
}

}  // namespace espalier
